//! The doorbell area: a page the guest writes and this process reads, shared with nobody else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::abi::{CHUNK_SIZE, DOORBELL_AWAKE, DOORBELL_BYTES};
use crate::slab::{seal_against_writing, sized_memfd};

/// A doorbell area.
#[derive(Debug)]
pub struct DoorbellArea {
    /// This process' view; none while the device is stopped.
    view: RwLock<Option<MmapRegion>>,
    file: File,
    len: u64,
    chunks: u32,
}

impl DoorbellArea {
    /// Length of the area for a window, in whole pages.
    pub fn len_for(window_size: u64) -> u64 {
        DOORBELL_BYTES + (window_size / CHUNK_SIZE).next_multiple_of(4096)
    }

    /// A silent area for a window of this size.
    pub fn new(window_size: u64) -> io::Result<Self> {
        let len = Self::len_for(window_size);
        let area = Self {
            view: RwLock::new(None),
            file: File::from(sized_memfd("vhost-ism-doorbell", len)?),
            len,
            chunks: (window_size / CHUNK_SIZE) as u32,
        };
        area.resume()?;
        Ok(area)
    }

    /// The memfd to map into the guest.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: an area has at least its awake page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The device is stopped: from now on nothing is looked at, and rings stay where they are.
    pub fn pause(&self) {
        *self.view_mut() = None;
    }

    /// The device runs. The guest is to kick.
    pub fn resume(&self) -> io::Result<()> {
        let view = MmapRegion::from_file(FileOffset::new(self.file.try_clone()?, 0), self.len as usize)
            .map_err(|error| io::Error::other(format!("cannot map the doorbell area: {error}")))?;
        *self.view_mut() = Some(view);
        self.set_awake(false);
        Ok(())
    }

    /// Whether the device is stopped and no VMM has the area mapped. If so it is of no use any more.
    ///
    /// A memfd can be sealed against writing only while nobody has mapped it for writing.
    pub fn is_abandoned(&self) -> bool {
        let view = self.view_mut();
        view.is_none() && seal_against_writing(&self.file)
    }

    fn view(&self) -> RwLockReadGuard<'_, Option<MmapRegion>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, Option<MmapRegion>> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the guest whether it can spare the kick. The fence pairs with the guest's, between its doorbell byte and
    /// its read of this word: one of the two sees the other.
    pub fn set_awake(&self, awake: bool) {
        if let Some(view) = &*self.view()
            && let Ok(word) = bytes(view).get_atomic_ref::<AtomicU32>(DOORBELL_AWAKE as usize)
        {
            word.store(u32::from(awake).to_le(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// Whether a chunk's byte is set, which is cleared.
    pub fn take(&self, chunk: u32) -> bool {
        let at = DOORBELL_BYTES as usize + chunk as usize;
        self.view().as_ref().is_some_and(|view| {
            bytes(view)
                .get_atomic_ref::<AtomicU8>(at)
                .is_ok_and(|bell| bell.swap(0, Ordering::SeqCst) != 0)
        })
    }

    /// Collects the chunks below `limit` whose byte is set, and clears them. What the guest wrote before it rang is
    /// visible afterwards.
    pub fn collect(&self, limit: u32, rung: &mut Vec<u32>) {
        rung.clear();
        let view = self.view();
        let Some(slice) = view.as_ref().map(bytes) else {
            return;
        };
        let limit = limit.min(self.chunks);
        for word in (0..limit.next_multiple_of(8)).step_by(8) {
            let at = DOORBELL_BYTES as usize + word as usize;
            // The area is whole pages, so every word of it lies inside.
            let Ok(bytes) = slice.get_atomic_ref::<AtomicU64>(at) else {
                break;
            };
            if bytes.load(Ordering::Relaxed) == 0 {
                continue;
            }
            for byte in 0..8 {
                let Ok(bell) = slice.get_atomic_ref::<AtomicU8>(at + byte) else {
                    break;
                };
                // Cleared before it is acted upon: a ring from now on is a new one.
                if bell.load(Ordering::Relaxed) != 0 && bell.swap(0, Ordering::SeqCst) != 0 {
                    rung.push(word + byte as u32);
                }
            }
        }
    }
}

fn bytes(view: &MmapRegion) -> VolatileSlice<'_> {
    view.as_volatile_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    /// The area as the guest has it.
    fn guest(area: &DoorbellArea) -> MmapRegion {
        MmapRegion::from_file(FileOffset::new(area.file.try_clone().unwrap(), 0), area.len as usize).unwrap()
    }

    fn ring(guest: &MmapRegion, chunk: usize) {
        bytes(guest).write_obj(1u8, DOORBELL_BYTES as usize + chunk).unwrap();
    }

    #[test]
    fn collects_each_ring_once() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        assert_eq!(area.len(), 8192);
        let guest = guest(&area);
        let mut rung = Vec::new();
        for chunk in [0, 7, 8, 4095] {
            ring(&guest, chunk);
        }
        area.collect(u32::MAX, &mut rung);
        assert_eq!(rung, [0, 7, 8, 4095]);
        area.collect(u32::MAX, &mut rung);
        assert!(rung.is_empty());
    }

    #[test]
    fn looks_no_further_than_asked() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        let mut rung = Vec::new();
        ring(&guest(&area), 100);
        area.collect(64, &mut rung);
        assert!(rung.is_empty());
        area.collect(101, &mut rung);
        assert_eq!(rung, [100]);
    }

    #[test]
    fn tells_whether_it_is_awake() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        let guest = guest(&area);
        area.set_awake(true);
        assert_eq!(bytes(&guest).read_obj::<u32>(0).unwrap(), 1);
        area.set_awake(false);
        assert_eq!(bytes(&guest).read_obj::<u32>(0).unwrap(), 0);
    }

    #[test]
    fn rings_wait_while_the_device_is_stopped() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        let guest = guest(&area);
        area.set_awake(true);
        area.pause();
        ring(&guest, 9);
        let mut rung = Vec::new();
        area.collect(u32::MAX, &mut rung);
        assert!(rung.is_empty());
        assert!(!area.take(9));
        area.resume().unwrap();
        assert_eq!(bytes(&guest).read_obj::<u32>(0).unwrap(), 0, "or nobody would kick");
        area.collect(u32::MAX, &mut rung);
        assert_eq!(rung, [9]);
    }

    #[test]
    fn it_is_abandoned_when_the_last_vmm_has_unmapped_it() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        let guest = guest(&area);
        assert!(!area.is_abandoned(), "it runs");
        area.pause();
        assert!(!area.is_abandoned(), "it is mapped");
        area.resume().unwrap();
        drop(guest);
        assert!(!area.is_abandoned(), "it runs");
        area.pause();
        assert!(area.is_abandoned());
        assert!(area.resume().is_err());
    }
}
