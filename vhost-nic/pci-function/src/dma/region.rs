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

    /// Returns the bytes of a range inside the region, if the device may access them so.
    #[inline]
    pub(super) fn reach(&self, address: u64, length: usize, write: bool) -> Option<VolatileSlice<'_>> {
        let memory = self.memory.as_ref()?;
        if write && !memory.writable {
            return None;
        }
        let offset = memory.offset + (address - self.address) as usize;
        memory.mapping.slice(offset, length)
    }

    /// Returns the bytes of a range inside the region.
    pub(super) fn slice(&self, address: u64, length: usize, write: bool) -> Result<VolatileSlice<'_>> {
        self.reach(address, length, write).ok_or_else(|| match &self.memory {
            None => DmaError::Unreachable { address },
            Some(memory) if write && !memory.writable => DmaError::ReadOnly { address },
            Some(_) => DmaError::Unmapped {
                address,
                length: length as u64,
            },
        })
    }
}
