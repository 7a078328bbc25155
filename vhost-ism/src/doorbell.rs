//! The doorbell area: pages that the guest writes and this process reads, shared with no other guest.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::RwLock;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::abi::{CHUNK_SIZE, DOORBELL_AWAKE, DOORBELL_BYTES, DOORBELL_PAGE};
use crate::slab::{seal_against_writing, sized_memfd};
use crate::tape::GuestTape;

/// A doorbell area.
#[derive(Debug)]
pub struct DoorbellArea {
    /// This process' mapping; `None` while the device is stopped.
    view: RwLock<Option<MmapRegion>>,
    file: File,
    len: u64,
    /// Offset of the awake word.
    awake: u64,
    /// Offset of the bytes.
    bytes: u64,
    chunks: u32,
    tape: Option<GuestTape>,
}

impl DoorbellArea {
    /// Returns the length of the area for a window in bytes, in whole pages.
    pub fn len_for(window_size: u64) -> u64 {
        DOORBELL_PAGE + (window_size / CHUNK_SIZE).next_multiple_of(DOORBELL_PAGE)
    }

    /// Creates a zeroed area for a window of this size, of a guest that may have a tape. In a region of its own, the
    /// bytes come first.
    pub fn new(window_size: u64, own_region: bool, tape: Option<GuestTape>) -> io::Result<Self> {
        let len = Self::len_for(window_size);
        let (awake, bytes) = match own_region {
            false => (DOORBELL_AWAKE, DOORBELL_BYTES),
            true => (len - DOORBELL_PAGE, 0),
        };
        let area = Self {
            view: RwLock::new(None),
            file: File::from(sized_memfd("vhost-ism-doorbell", len)?),
            len,
            awake,
            bytes,
            chunks: (window_size / CHUNK_SIZE) as u32,
            tape,
        };
        area.resume()?;
        Ok(area)
    }

    /// Returns the memfd to map into the guest.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns false: an area has at least its awake page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Stops collecting while the device is stopped; pending rings stay in the area.
    pub fn pause(&self) {
        *self.view.write() = None;
    }

    /// Resumes collecting; the guest must kick.
    pub fn resume(&self) -> io::Result<()> {
        let view = MmapRegion::from_file(FileOffset::new(self.file.try_clone()?, 0), self.len as usize)
            .map_err(|error| io::Error::other(format!("cannot map the doorbell area: {error}")))?;
        *self.view.write() = Some(view);
        self.set_awake(false);
        Ok(())
    }

    /// Returns whether the device is stopped and no VMM has the area mapped; it is unusable afterwards.
    ///
    /// A memfd can be sealed against writing only while no process has mapped it for writing.
    pub fn is_abandoned(&self) -> bool {
        let view = self.view.write();
        view.is_none() && seal_against_writing(&self.file)
    }

    /// Sets the awake word: whether the guest may omit the kick. The fence pairs with the guest's between its write of
    /// the doorbell byte and its read of this word: at least one side sees the other's write.
    pub fn set_awake(&self, awake: bool) {
        if let Some(view) = &*self.view.read()
            && let Ok(word) = bytes(view).get_atomic_ref::<AtomicU32>(self.awake as usize)
        {
            word.store(u32::from(awake).to_le(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if let Some(GuestTape { tape, guest }) = &self.tape {
            tape.awake(*guest, awake);
        }
    }

    /// Clears a chunk's byte; returns whether it was set.
    pub fn take(&self, chunk: u32) -> bool {
        let at = self.bytes as usize + chunk as usize;
        let rung = self.view.read().as_ref().is_some_and(|view| {
            bytes(view)
                .get_atomic_ref::<AtomicU8>(at)
                .is_ok_and(|bell| bell.swap(0, Ordering::SeqCst) != 0)
        });
        match &self.tape {
            None => rung,
            Some(GuestTape { tape, guest }) => tape.take(*guest, chunk, rung),
        }
    }

    /// Collects into `rung` the chunks below `limit` whose byte is set, and clears the bytes. Writes that the guest
    /// made before the ring are visible afterwards.
    pub fn collect(&self, limit: u32, rung: &mut Vec<u32>) {
        rung.clear();
        self.read(limit, rung);
        if let Some(GuestTape { tape, guest }) = &self.tape {
            tape.collect(*guest, limit, rung);
        }
    }

    fn read(&self, limit: u32, rung: &mut Vec<u32>) {
        let view = self.view.read();
        let Some(slice) = view.as_ref().map(bytes) else {
            return;
        };
        let limit = limit.min(self.chunks);
        for word in (0..limit.next_multiple_of(8)).step_by(8) {
            let at = self.bytes as usize + word as usize;
            // The area consists of whole pages, so every word lies inside.
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
                // Cleared before it is acted on: a later ring is a new one.
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

    /// Maps the area as the guest does.
    fn guest(area: &DoorbellArea) -> MmapRegion {
        MmapRegion::from_file(FileOffset::new(area.file.try_clone().unwrap(), 0), area.len as usize).unwrap()
    }

    fn ring(guest: &MmapRegion, chunk: usize) {
        bytes(guest).write_obj(1u8, DOORBELL_BYTES as usize + chunk).unwrap();
    }

    #[test]
    fn collects_each_ring_once() {
        let area = DoorbellArea::new(64 << 20, false, None).unwrap();
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
        let area = DoorbellArea::new(64 << 20, false, None).unwrap();
        let mut rung = Vec::new();
        ring(&guest(&area), 100);
        area.collect(64, &mut rung);
        assert!(rung.is_empty());
        area.collect(101, &mut rung);
        assert_eq!(rung, [100]);
    }

    #[test]
    fn tells_whether_it_is_awake() {
        let area = DoorbellArea::new(64 << 20, false, None).unwrap();
        let guest = guest(&area);
        area.set_awake(true);
        assert_eq!(bytes(&guest).read_obj::<u32>(0).unwrap(), 1);
        area.set_awake(false);
        assert_eq!(bytes(&guest).read_obj::<u32>(0).unwrap(), 0);
    }

    #[test]
    fn the_bytes_come_first_in_a_region_of_their_own() {
        let area = DoorbellArea::new(64 << 20, true, None).unwrap();
        let guest = guest(&area);
        let mut rung = Vec::new();
        for chunk in [0, 9, 4095] {
            bytes(&guest).write_obj(1u8, chunk).unwrap();
        }
        area.set_awake(true);
        assert_eq!(bytes(&guest).read_obj::<u32>(4096).unwrap(), 1);
        area.collect(u32::MAX, &mut rung);
        assert_eq!(rung, [0, 9, 4095]);
        assert!(!area.take(9));
        bytes(&guest).write_obj(1u8, 9).unwrap();
        assert!(area.take(9));
    }

    #[test]
    fn rings_wait_while_the_device_is_stopped() {
        let area = DoorbellArea::new(64 << 20, false, None).unwrap();
        let guest = guest(&area);
        area.set_awake(true);
        area.pause();
        ring(&guest, 9);
        let mut rung = Vec::new();
        area.collect(u32::MAX, &mut rung);
        assert!(rung.is_empty());
        assert!(!area.take(9));
        area.resume().unwrap();
        assert_eq!(
            bytes(&guest).read_obj::<u32>(0).unwrap(),
            0,
            "otherwise the guest would not kick"
        );
        area.collect(u32::MAX, &mut rung);
        assert_eq!(rung, [9]);
    }

    #[test]
    fn it_is_abandoned_when_the_last_vmm_has_unmapped_it() {
        let area = DoorbellArea::new(64 << 20, false, None).unwrap();
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
