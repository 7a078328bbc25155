//! Failed accesses and mappings.

use thiserror::Error;

/// Reason why an access to guest memory or a change of the mappings failed.
#[derive(Debug, Error)]
pub enum DmaError {
    /// Part of the range, or all of it, is not mapped.
    #[error("no guest memory at {address:#x}, {length} bytes")]
    Unmapped {
        /// Guest address of the access.
        address: u64,
        /// Length of the access in bytes.
        length: u64,
    },
    /// The source of a copy, in the memory of another guest or of the same, cannot be read.
    #[error("the source of a copy cannot be read")]
    Source(#[source] Box<DmaError>),
    /// Part of the range, or all of it, was mapped until recently.
    #[error("guest memory at {address:#x}, {length} bytes, was unmapped")]
    AfterUnmap {
        /// Guest address of the access.
        address: u64,
        /// Length of the access in bytes.
        length: u64,
    },
    /// Memory without a file, such as a ROM or the registers of another device.
    #[error("guest memory at {address:#x} is not shared with the device")]
    Unreachable {
        /// Guest address of the access.
        address: u64,
    },
    /// A write to memory that the device may only read.
    #[error("guest memory at {address:#x} is read-only")]
    ReadOnly {
        /// Guest address of the access.
        address: u64,
    },
    /// An atomic access whose address is not a multiple of its size.
    #[error("guest address {address:#x} is not aligned for an atomic access")]
    Misaligned {
        /// Guest address of the access.
        address: u64,
    },
    /// A new mapping that overlaps an existing one.
    #[error("mapping at {address:#x}, {length} bytes, overlaps another")]
    Overlap {
        /// Guest address of the mapping.
        address: u64,
        /// Length of the mapping in bytes.
        length: u64,
    },
    /// There are as many mappings as there may be.
    #[error("guest memory at {address:#x} would be one mapping too many")]
    Limit {
        /// Guest address of the mapping.
        address: u64,
    },
    /// The file of a mapping cannot be mapped.
    #[error("guest memory at {address:#x} cannot be mapped")]
    Map {
        /// Guest address of the mapping.
        address: u64,
        /// Error of the operating system.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DmaError {
    pub(super) fn map(address: u64, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Map {
            address,
            source: source.into(),
        }
    }

    /// Guest address of the access or mapping.
    pub fn address(&self) -> u64 {
        match *self {
            Self::Unmapped { address, .. }
            | Self::AfterUnmap { address, .. }
            | Self::Unreachable { address }
            | Self::ReadOnly { address }
            | Self::Misaligned { address }
            | Self::Overlap { address, .. }
            | Self::Limit { address }
            | Self::Map { address, .. } => address,
            Self::Source(ref cause) => cause.address(),
        }
    }
}

/// Result of an access to guest memory.
pub type Result<T> = std::result::Result<T, DmaError>;
