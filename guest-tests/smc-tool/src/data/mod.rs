//! The data that workloads move, and how it is checked.

mod check;
mod mismatch;
mod pattern;

pub(crate) use check::Hasher;
pub use check::{Check, Digest};
pub use mismatch::Mismatch;
pub use pattern::Pattern;
