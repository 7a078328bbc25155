//! The first difference between received and expected data.

use serde::Serialize;

/// The first byte that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("data differs at offset {offset} ({offset:#x}): expected {expected:#04x}, found {found:#04x}")]
pub struct Mismatch {
    /// Offset in the stream.
    pub offset: u64,
    /// Expected byte.
    pub expected: u8,
    /// Received byte.
    pub found: u8,
}
