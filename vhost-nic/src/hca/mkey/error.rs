//! Why a key does not serve.

use thiserror::Error;

/// Why a range is not reached with a key.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum MkeyError {
    /// No such key in use, or another variant of it.
    #[error("Key {0:#x} does not exist.")]
    Unknown(u32),
    /// It is of another protection domain.
    #[error("Key {0:#x} belongs to another protection domain.")]
    Domain(u32),
    /// It is for one queue, and not this one.
    #[error("Key {0:#x} is bound to another queue.")]
    Queue(u32),
    /// It does not allow that.
    #[error("Key {0:#x} does not allow this access.")]
    Access(u32),
    /// Not all of the range is the key's.
    #[error("{1} bytes at {2:#x} are not all in key {0:#x}.")]
    Range(u32, u64, u64),
    /// Its pages are of a size that there is not.
    #[error("Key {0:#x} has a translation that is not supported.")]
    Translation(u32),
    /// Too many keys are behind it.
    #[error("Key {0:#x} is behind too many other keys.")]
    Indirection(u32),
}

/// Why there cannot be such a key.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum InvalidMkey {
    /// There is no such access mode.
    #[error("There is no such access mode.")]
    Mode,
    /// Longer than lists may be.
    #[error("The list of translations is too long.")]
    Length,
}
