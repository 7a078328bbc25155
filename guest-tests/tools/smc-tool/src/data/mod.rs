//! The data that workloads move, and how it is checked.

mod check;
mod mismatch;
mod pattern;

pub use check::{Check, Digest};
pub(crate) use check::{Hasher, hexadecimal};
pub use mismatch::Mismatch;
pub use pattern::Pattern;
