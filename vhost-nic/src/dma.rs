//! The single door to a guest's memory.
//!
//! Everything the device reads or writes there goes through [`Dma`], with the reason for the access. Addresses and
//! lengths come from the guest: each access is checked against what the attachment has mapped, and fails whole if any
//! byte of it is outside. What an attachment unmaps is out of reach when [`Dma::unmap`] returns.

mod held;
mod region;
mod stats;

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use thiserror::Error;
use vm_memory::{AtomicAccess, Bytes, VolatileMemory, VolatileSlice};

pub use held::Held;
use region::Regions;
use stats::Tally;
pub use stats::{DmaStats, Purpose, PurposeStats};

/// A guest's memory, as its NIC sees it.
#[derive(Debug, Default)]
pub struct Dma {
    regions: RwLock<Regions>,
    stats: DmaStats,
}

/// What is behind a range of a guest's addresses.
#[derive(Debug)]
pub struct Backing {
    /// The file that holds the memory.
    pub file: File,
    /// Where in the file the range begins, in bytes.
    pub offset: u64,
    /// Whether the device may write there.
    pub writable: bool,
}

/// Why an access to guest memory, or a change of the mappings, failed.
#[derive(Debug, Error)]
pub enum DmaError {
    /// No memory there, or not all of it.
    #[error("There is no guest memory at {address:#x}, {length} bytes.")]
    Unmapped {
        /// Guest address of the access.
        address: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Memory the device cannot reach, for example a ROM or another device's registers.
    #[error("The guest memory at {address:#x} is not shared with the device.")]
    Unreachable {
        /// Guest address of the access.
        address: u64,
    },
    /// Memory the device may only read.
    #[error("The guest memory at {address:#x} is read-only.")]
    ReadOnly {
        /// Guest address of the access.
        address: u64,
    },
    /// An atomic access whose address is not a multiple of its size.
    #[error("The guest address {address:#x} is not aligned for an atomic access.")]
    Misaligned {
        /// Guest address of the access.
        address: u64,
    },
    /// A new mapping that overlaps one there is.
    #[error("A mapping at {address:#x}, {length} bytes, overlaps another.")]
    Overlap {
        /// Guest address of the mapping.
        address: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// A mapping whose file cannot be mapped.
    #[error("The guest memory at {address:#x} cannot be mapped: {source}")]
    Map {
        /// Guest address of the mapping.
        address: u64,
        /// What the operating system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What an access to guest memory returns.
pub type Result<T> = std::result::Result<T, DmaError>;

impl Dma {
    /// A guest without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `length` bytes at guest address `address` reachable; without a backing only known, so that an access fails
    /// with [`DmaError::Unreachable`]. Mapping again exactly what is mapped replaces it.
    pub fn map(&self, address: u64, length: u64, backing: Option<Backing>) -> Result<()> {
        let region = region::Region::new(address, length, backing)?;
        self.regions.write().insert(region)
    }

    /// Takes away all mappings, or parts of them, in `length` bytes at `address`. Returns when no access uses them any more.
    pub fn unmap(&self, address: u64, length: u64) -> Result<()> {
        self.regions.write().remove(address, length)
    }

    /// Takes away all mappings.
    pub fn unmap_all(&self) {
        self.regions.write().clear();
    }

    /// Reads `data.len()` bytes.
    pub fn read(&self, purpose: Purpose, address: u64, data: &mut [u8]) -> Result<()> {
        let mut rest = data;
        let length = rest.len();
        self.access(purpose, address, length, false, |slice| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        })
    }

    /// Writes all of `data`.
    pub fn write(&self, purpose: Purpose, address: u64, data: &[u8]) -> Result<()> {
        let mut rest = data;
        self.access(purpose, address, data.len(), true, |slice| {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        })
    }

    /// Reads a naturally aligned integer at once, in the order of the bytes in memory; reads after it see what the guest wrote before it.
    pub fn load<T: AtomicAccess>(&self, purpose: Purpose, address: u64) -> Result<T> {
        self.atomic::<T, T>(purpose, address, false, |slice| slice.load(0, Ordering::Acquire))
    }

    /// Writes a naturally aligned integer at once; a guest that sees it sees all that was written before it.
    pub fn store<T: AtomicAccess>(&self, purpose: Purpose, address: u64, value: T) -> Result<()> {
        self.atomic::<T, ()>(purpose, address, true, |slice| slice.store(value, 0, Ordering::Release))
    }

    /// Sees to it that no mapping is taken away for a while: who moves much in small parts waits and counts once. Meanwhile the memory is
    /// accessed in no other way by the same thread.
    pub fn hold(&self, purpose: Purpose) -> Held<'_> {
        Held {
            // Recursive: two threads that copy between the same two guests, each one way, and a change of mappings must not wait for each
            // other.
            regions: self.regions.read_recursive(),
            tally: Tally::new(&self.stats, purpose),
            near: 0,
        }
    }

    /// Replaces a naturally aligned 64-bit integer by what `change` makes of it, if anything, at once; returns what was there.
    pub fn update(&self, purpose: Purpose, address: u64, change: impl Fn(u64) -> Option<u64>) -> Result<u64> {
        self.atomic::<u64, u64>(purpose, address, true, |slice| {
            let value = slice.get_atomic_ref::<AtomicU64>(0)?;
            let updated = value.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                change(u64::from_le(old)).map(u64::to_le)
            });
            Ok(u64::from_le(updated.unwrap_or_else(|unchanged| unchanged)))
        })
    }

    /// How often and how much was accessed, by purpose.
    pub fn stats(&self) -> &DmaStats {
        &self.stats
    }

    /// Calls `act` with the host's view of the range, in order and in pieces where mappings meet.
    fn access(
        &self,
        purpose: Purpose,
        address: u64,
        length: usize,
        write: bool,
        act: impl FnMut(VolatileSlice<'_>),
    ) -> Result<()> {
        let result = self.regions.read().visit(address, length, write, act);
        self.stats.count(purpose, length, result.is_ok());
        result
    }

    fn atomic<T: AtomicAccess, R>(
        &self,
        purpose: Purpose,
        address: u64,
        write: bool,
        act: impl Fn(VolatileSlice<'_>) -> std::result::Result<R, vm_memory::VolatileMemoryError>,
    ) -> Result<R> {
        if !address.is_multiple_of(size_of::<T>() as u64) {
            return Err(DmaError::Misaligned { address });
        }
        let mut result = None;
        self.access(purpose, address, size_of::<T>(), write, |slice| {
            result = act(slice).ok()
        })?;
        // A piece of the range at most, or memory that the host has at an odd place: no guest maps its RAM like that.
        result.ok_or(DmaError::Misaligned { address })
    }
}

#[cfg(test)]
mod tests;
