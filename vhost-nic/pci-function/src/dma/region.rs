//! A range of guest addresses.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::error::{DmaError, Result};
use super::mapping::Mapping;

/// A range of guest addresses.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) address: u64,
    /// Length in bytes; at least 1, and `address + length` does not overflow.
    pub(super) length: u64,
    memory: Option<Memory>,
}

/// The host's view of a region. Regions of the same file share the mapping.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) mapping: Arc<Mapping>,
    /// Offset of the region in the mapping, in bytes.
    pub(super) offset: usize,
    pub(super) writable: bool,
}

impl Region {
    /// Creates a region. Accesses to one without memory fail.
    pub(super) fn new(address: u64, length: u64, memory: Option<Memory>) -> Self {
        Self {
            address,
            length,
            memory,
        }
    }

    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.address + self.length
    }

    #[inline]
    pub(super) fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.address) < self.length
    }

    /// The part from `from` to `to`, both of which must be inside.
    pub(super) fn part(&self, from: u64, to: u64) -> Self {
        let mut memory = self.memory.clone();
        if let Some(memory) = &mut memory {
            memory.offset += (from - self.address) as usize;
        }
        Self {
            address: from,
            length: to - from,
            memory,
        }
    }

    /// Returns the host's view of all bytes, and whether the device may write them; `None` if it has no memory.
    #[inline]
    pub(super) fn bytes(&self) -> Option<(VolatileSlice<'_>, bool)> {
        let memory = self.memory.as_ref()?;
        let bytes = memory
            .mapping
            .slice(memory.offset, usize::try_from(self.length).ok()?)?;
        Some((bytes, memory.writable))
    }

    /// Returns the bytes of a range inside the region.
    pub(super) fn slice(&self, address: u64, length: usize, write: bool) -> Result<VolatileSlice<'_>> {
        let (bytes, writable) = self.bytes().ok_or(DmaError::Unreachable { address })?;
        if write && !writable {
            return Err(DmaError::ReadOnly { address });
        }
        let slice = bytes.subslice((address - self.address) as usize, length);
        slice.map_err(|_| DmaError::Unmapped {
            address,
            length: length as u64,
        })
    }
}
