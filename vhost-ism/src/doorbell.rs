//! The doorbell area: a page the guest writes and this process reads, shared with nobody else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::abi::{CHUNK_SIZE, DOORBELL_AWAKE, DOORBELL_BYTES};
use crate::slab::sealed_memfd;

/// A mapped doorbell area.
#[derive(Debug)]
pub struct DoorbellArea {
    memory: MmapRegion,
    file: File,
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
        let file = File::from(sealed_memfd("vhost-ism-doorbell", len)?);
        let memory = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), len as usize)
            .map_err(|error| io::Error::other(format!("cannot map the doorbell area: {error}")))?;
        Ok(Self {
            memory,
            file,
            chunks: (window_size / CHUNK_SIZE) as u32,
        })
    }

    /// The memfd to map into the guest.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.memory.size() as u64
    }

    /// Never: an area has at least its awake page.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn bytes(&self) -> VolatileSlice<'_> {
        self.memory.as_volatile_slice()
    }

    /// Tells the guest whether it can spare the kick. The fence pairs with the guest's, between its doorbell byte and
    /// its read of this word: one of the two sees the other.
    pub fn set_awake(&self, awake: bool) {
        if let Ok(word) = self.bytes().get_atomic_ref::<AtomicU32>(DOORBELL_AWAKE as usize) {
            word.store(u32::from(awake).to_le(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// Whether a chunk's byte is set, which is cleared.
    pub fn take(&self, chunk: u32) -> bool {
        let at = DOORBELL_BYTES as usize + chunk as usize;
        self.bytes()
            .get_atomic_ref::<AtomicU8>(at)
            .is_ok_and(|bell| bell.swap(0, Ordering::SeqCst) != 0)
    }

    /// Collects the chunks below `limit` whose byte is set, and clears them. What the guest wrote before it rang is
    /// visible afterwards.
    pub fn collect(&self, limit: u32, rung: &mut Vec<u32>) {
        rung.clear();
        let slice = self.bytes();
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

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn collects_each_ring_once() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        assert_eq!(area.len(), 8192);
        let mut rung = Vec::new();
        for chunk in [0, 7, 8, 4095] {
            area.bytes().write_obj(1u8, DOORBELL_BYTES as usize + chunk).unwrap();
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
        area.bytes().write_obj(1u8, DOORBELL_BYTES as usize + 100).unwrap();
        area.collect(64, &mut rung);
        assert!(rung.is_empty());
        area.collect(101, &mut rung);
        assert_eq!(rung, [100]);
    }

    #[test]
    fn tells_whether_it_is_awake() {
        let area = DoorbellArea::new(64 << 20).unwrap();
        area.set_awake(true);
        assert_eq!(area.bytes().read_obj::<u32>(0).unwrap(), 1);
        area.set_awake(false);
        assert_eq!(area.bytes().read_obj::<u32>(0).unwrap(), 0);
    }
}
