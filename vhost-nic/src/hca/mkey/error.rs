//! Errors of memory keys.

use thiserror::Error;

use crate::hca::memory_budget::OverBudget;

/// Reason why a range cannot be accessed with a key.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum MkeyError {
    /// No such key, or it is free, or has another variant.
    #[error("key {0:#x} does not exist")]
    Unknown(u32),
    /// The key belongs to another protection domain.
    #[error("key {0:#x} belongs to another protection domain")]
    Domain(u32),
    /// The key is bound to another queue.
    #[error("key {0:#x} is bound to another queue")]
    Queue(u32),
    /// The key lacks the access right.
    #[error("key {0:#x} does not allow this access")]
    Access(u32),
    /// The range exceeds the key.
    #[error("{1} bytes at {2:#x} exceed key {0:#x}")]
    Range(u32, u64, u64),
    /// Unsupported page size.
    #[error("key {0:#x} has an unsupported translation")]
    Translation(u32),
    /// Too many ranges for the length of the access.
    #[error("the way to key {0:#x} is through too many small ranges")]
    Steps(u32),
    /// Too many levels of indirection.
    #[error("key {0:#x} is behind too many levels of indirection")]
    Indirection(u32),
}

impl MkeyError {
    /// The key.
    pub fn key(self) -> u32 {
        match self {
            Self::Unknown(key)
            | Self::Domain(key)
            | Self::Queue(key)
            | Self::Access(key)
            | Self::Range(key, ..)
            | Self::Translation(key)
            | Self::Steps(key)
            | Self::Indirection(key) => key,
        }
    }
}

/// Reason why a key cannot be created.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum InvalidMkey {
    /// Unsupported access mode.
    #[error("the access mode is not supported")]
    Mode,
    /// Translation list too long.
    #[error("the translation list is too long")]
    Length,
    /// No host memory is left for the list.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Reason why a list cannot be changed. It is as before.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ListError {
    #[error("the list exceeds the capacity its key was created with")]
    TooLong,
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

impl From<ListError> for InvalidMkey {
    fn from(error: ListError) -> Self {
        match error {
            ListError::TooLong => Self::Length,
            ListError::OverBudget(error) => Self::OverBudget(error),
        }
    }
}
