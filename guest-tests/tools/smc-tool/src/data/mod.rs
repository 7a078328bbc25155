//! The data of the workloads and its verification.

mod check;
mod mismatch;
mod pattern;

pub use check::{Check, Digest};
pub(crate) use check::{Hasher, hexadecimal};
pub use mismatch::Mismatch;
pub use pattern::Pattern;
