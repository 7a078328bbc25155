//! Checked and counted access to the mapped regions.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use vhost_daemon::lost_memory::Loss;
use vm_memory::{AtomicAccess, Bytes, VolatileMemory, VolatileSlice};

use super::door::{MemoryDoor, Passage};
use super::error::{DmaError, Result};
use super::held::Held;
use super::mapping::{Backing, MemoryFile};
use super::reach::Reach;
use super::region_table::RegionTable;
use super::stats::{Counters, Purpose, PurposeStats, Tally};

/// Half of the addresses of a process.
const DEFAULT_MAX_BYTES: u64 = 1 << 46;

/// Guest memory as the attachment sees it: mapped, not accessed.
pub trait GuestMap: Send + Sync {
    /// Maps `length` bytes at guest address `address`. Accesses to a mapping without a backing fail with
    /// [`DmaError::Unreachable`]. A mapping of exactly the same range is replaced.
    fn map(&self, address: u64, length: u64, backing: Option<Backing>) -> Result<()>;

    /// Removes all mappings, or parts of mappings, from the `length` bytes at `address`. Waits for accesses in
    /// progress.
    fn unmap(&self, address: u64, length: u64) -> Result<()>;

    /// Removes all mappings. Waits for accesses in progress.
    fn unmap_all(&self);

    /// Returns the maximum number of bytes that may be mapped.
    fn max_bytes(&self) -> u64;

    /// Returns what ends the guest's connection when memory is lost.
    fn loss(&self) -> &Arc<Loss>;
}

/// Guest memory as the device sees it, with counters per purpose `P`.
pub struct Dma<P> {
    regions: RwLock<RegionTable>,
    /// Maximum number of bytes that are mapped.
    max_bytes: AtomicU64,
    loss: Arc<Loss>,
    counters: Counters<P>,
    door: OnceLock<Arc<dyn MemoryDoor>>,
}

impl<P: Purpose> GuestMap for Dma<P> {
    fn map(&self, address: u64, length: u64, backing: Option<Backing>) -> Result<()> {
        let max_bytes = self.max_bytes();
        // Before the lock, for which the engines of other guests wait.
        let file = backing.map(MemoryFile::new).transpose();
        let file = file.map_err(|error| DmaError::map(address, error))?;
        self.regions.write().map(address, length, file, max_bytes, &self.loss)
    }

    fn unmap(&self, address: u64, length: u64) -> Result<()> {
        self.regions.write().unmap(address, length)
    }

    fn unmap_all(&self) {
        self.regions.write().clear();
    }

    fn max_bytes(&self) -> u64 {
        self.max_bytes.load(Ordering::Relaxed)
    }

    fn loss(&self) -> &Arc<Loss> {
        &self.loss
    }
}

impl<P: Purpose> Dma<P> {
    /// Creates the memory of a guest, without mappings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of bytes of later mappings, 64 TiB unless set.
    pub fn set_max_bytes(&self, max_bytes: u64) {
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// Puts a door before all accesses. Further calls are ignored.
    pub fn set_door(&self, door: Arc<dyn MemoryDoor>) {
        let _ = self.door.set(door);
    }

    /// Reads `data.len()` bytes.
    #[inline]
    pub fn read(&self, purpose: P, address: u64, data: &mut [u8]) -> Result<()> {
        let length = data.len();
        let live = |data: &mut [u8]| Reach::new(self.regions.read()).read(address, data);
        let result = match self.passage(purpose) {
            None => live(data),
            Some(passage) => passage.read(address, data, &mut { live }),
        };
        self.counters.of(purpose).count(length, result.is_ok());
        result
    }

    /// Writes all of `data`.
    #[inline]
    pub fn write(&self, purpose: P, address: u64, data: &[u8]) -> Result<()> {
        let live = || Reach::new(self.regions.read()).write(address, data);
        let result = match self.passage(purpose) {
            None => live(),
            Some(passage) => passage.write(address, data, &mut { live }),
        };
        self.counters.of(purpose).count(data.len(), result.is_ok());
        result
    }

    /// Loads a naturally aligned integer in one access, in the byte order of memory. Acquire ordering: later reads see
    /// what the guest wrote before the value.
    #[inline]
    pub fn load<T: AtomicAccess>(&self, purpose: P, address: u64) -> Result<T> {
        let live = || self.atomic::<T, T>(address, false, |slice| slice.load(0, Ordering::Acquire));
        let result = match self.passage(purpose) {
            None => live(),
            Some(passage) => {
                let mut value = T::zeroed();
                let read = passage.read(address, value.as_mut_slice(), &mut |data| {
                    data.copy_from_slice(live()?.as_slice());
                    Ok(())
                });
                read.map(|()| value)
            }
        };
        self.counters.of(purpose).count(size_of::<T>(), result.is_ok());
        result
    }

    /// Stores a naturally aligned integer in one access. Release ordering: a guest that sees the value sees everything
    /// written before it.
    #[inline]
    pub fn store<T: AtomicAccess>(&self, purpose: P, address: u64, value: T) -> Result<()> {
        let live = || self.atomic::<T, ()>(address, true, |slice| slice.store(value, 0, Ordering::Release));
        let result = match self.passage(purpose) {
            None => live(),
            Some(passage) => passage.write(address, value.as_slice(), &mut { live }),
        };
        self.counters.of(purpose).count(size_of::<T>(), result.is_ok());
        result
    }

    /// Keeps the mappings in place until the guard is dropped, so that many small accesses lock and count once.
    /// Meanwhile the thread must not access this memory in any other way.
    #[inline]
    pub fn hold(&self, purpose: P) -> Held<'_> {
        // Recursive: two threads that copy between the same two guests in opposite directions, and a change of
        // mappings, must not wait for each other.
        Held::new(
            Reach::new(self.regions.read_recursive()),
            Tally::new(self.counters.of(purpose)),
            self.passage(purpose),
        )
    }

    /// Replaces a naturally aligned 64-bit integer atomically by the result of `change`, unless that is `None`; returns
    /// the previous value.
    pub fn update(&self, purpose: P, address: u64, change: impl Fn(u64) -> Option<u64>) -> Result<u64> {
        let live = || {
            self.atomic::<u64, u64>(address, true, |slice| {
                let value = slice.get_atomic_ref::<AtomicU64>(0)?;
                let updated = value.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                    change(u64::from_le(old)).map(u64::to_le)
                });
                Ok(u64::from_le(updated.unwrap_or_else(|unchanged| unchanged)))
            })
        };
        let result = match self.passage(purpose) {
            None => live(),
            Some(passage) => passage.update(address, &change, &mut { live }),
        };
        self.counters.of(purpose).count(size_of::<u64>(), result.is_ok());
        result
    }

    #[inline]
    fn passage(&self, purpose: P) -> Option<Passage<'_>> {
        let door = self.door.get()?;
        Some(Passage::new(&**door, purpose.index()))
    }

    /// Returns the counters of one purpose.
    pub fn stats_of(&self, purpose: P) -> PurposeStats {
        self.counters.snapshot_of(purpose.index())
    }

    /// Returns the counters of every purpose, in the order of [`Purpose::NAMES`].
    pub fn stats(&self) -> Vec<PurposeStats> {
        self.counters.snapshot()
    }

    #[inline]
    fn atomic<T: AtomicAccess, R>(
        &self,
        address: u64,
        write: bool,
        act: impl Fn(VolatileSlice<'_>) -> std::result::Result<R, vm_memory::VolatileMemoryError>,
    ) -> Result<R> {
        if !address.is_multiple_of(size_of::<T>() as u64) {
            return Err(DmaError::Misaligned { address });
        }
        let mut reach = Reach::new(self.regions.read());
        // In more than one region, or at an odd address of the host: no guest maps its RAM like that.
        let odd = DmaError::Misaligned { address };
        if let Some(slice) = reach.whole(address, size_of::<T>(), write) {
            return act(slice).map_err(|_| odd);
        }
        reach.parts(address, size_of::<T>(), write)?;
        Err(odd)
    }
}

impl<P: Purpose> Default for Dma<P> {
    fn default() -> Self {
        Self {
            regions: RwLock::default(),
            max_bytes: AtomicU64::new(DEFAULT_MAX_BYTES),
            loss: Arc::default(),
            counters: Counters::default(),
            door: OnceLock::new(),
        }
    }
}

impl<P: Purpose> fmt::Debug for Dma<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dma")
            .field("regions", &self.regions)
            .field("stats", &self.stats())
            .finish()
    }
}
