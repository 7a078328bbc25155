//! Where received data first differs from what was sent.

use serde::Serialize;

/// The first byte that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("data differs at offset {offset} ({offset:#x}): expected {expected:#04x}, found {found:#04x}")]
pub struct Mismatch {
    /// Offset in the stream.
    pub offset: u64,
    /// What should be there.
    pub expected: u8,
    /// What is there.
    pub found: u8,
}
