//! This process' mapping of a slab, in copy mode: the destination of moves, and the bells of the owner.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::abi::{SLAB_AWAKE, SLAB_BELLS, SLAB_PRESENT};

/// Largest write by words. A control message of SMC has 32 bytes.
pub const WORDS_MAX: usize = 64;
/// Length of a word in bytes.
const WORD: usize = size_of::<u64>();

/// A mapping of a slab.
#[derive(Debug)]
pub struct SlabView(MmapRegion);

impl SlabView {
    /// Maps a slab of `len` bytes.
    pub fn new(memfd: BorrowedFd<'_>, len: u64) -> io::Result<Self> {
        let file = File::from(memfd.try_clone_to_owned()?);
        MmapRegion::from_file(FileOffset::new(file, 0), len as usize)
            .map(Self)
            .map_err(|error| io::Error::other(format!("cannot map a slab: {error}")))
    }

    /// Returns a range of the slab, if it is inside.
    pub fn range(&self, offset: u64, length: u64) -> Option<VolatileSlice<'_>> {
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        self.0.get_slice(offset, length).ok()
    }

    /// Writes whole aligned words in ascending order, each at once: the owner may read the two cursors of a control
    /// message at any time. Returns false if range or bytes are not words.
    pub fn write_words(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(slice) = self.range(offset, bytes.len() as u64) else {
            return false;
        };
        if !offset.is_multiple_of(WORD as u64) || !bytes.len().is_multiple_of(WORD) || bytes.len() > WORDS_MAX {
            return false;
        }
        let (words, _) = bytes.as_chunks::<WORD>();
        words.iter().enumerate().all(|(index, word)| {
            let at = slice.get_atomic_ref::<AtomicU64>(index * WORD);
            at.map(|at| at.store(u64::from_ne_bytes(*word), Ordering::Release))
                .is_ok()
        })
    }

    /// Rings the bell of the DMB with this first chunk. Returns whether the owner needs an event as well: it has no
    /// bells, or does not poll them. Writes to the DMB that came before are visible to an owner that finds the bell.
    ///
    /// The first fence pairs with the owner's between its write of the bell and its read of the DMB, the second with
    /// that between its write of the awake word and its read of the bell.
    pub fn ring(&self, chunk: u32) -> bool {
        let slice = self.0.as_volatile_slice();
        let word = |at: u64| slice.get_atomic_ref::<AtomicU32>(at as usize).ok();
        let bell = slice.get_atomic_ref::<AtomicU8>((SLAB_BELLS + u64::from(chunk)) as usize);
        let (Some(awake), Some(present), Ok(bell)) = (word(SLAB_AWAKE), word(SLAB_PRESENT), bell) else {
            return true;
        };
        fence(Ordering::SeqCst);
        if present.load(Ordering::Relaxed) == 0 {
            return true;
        }
        if bell.load(Ordering::Relaxed) != 0 {
            return false;
        }
        bell.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        awake.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::slab::sealed_memfd;
    use vm_memory::Bytes;

    fn view() -> SlabView {
        let memfd = sealed_memfd("test-slab", 1 << 20).unwrap();
        SlabView::new(memfd.as_fd(), 1 << 20).unwrap()
    }

    #[test]
    fn words_are_written_whole_or_not_at_all() {
        let view = view();
        let bytes: Vec<u8> = (1..=64).collect();
        assert!(view.write_words(8, &bytes));
        let mut read = [0; 80];
        view.range(0, 80).unwrap().read_slice(&mut read, 0).unwrap();
        assert_eq!(read[..8], [0; 8]);
        assert_eq!(read[8..72], bytes[..]);
        assert_eq!(read[72..], [0; 8]);
        for (offset, length) in [(4, 8), (0, 12), (0, 72), ((1 << 20) - 4, 8), (1 << 20, 8)] {
            assert!(
                !view.write_words(offset, &vec![0xff; length]),
                "{length} bytes at {offset}"
            );
        }
    }

    /// The states of an owner: without bells, asleep with a bell that is pending or not, and awake.
    #[test]
    fn an_owner_that_polls_needs_no_event() {
        let view = view();
        let store = |at: u64, value: u32| {
            let slice = view.range(at, 4).unwrap();
            slice.write_obj(value, 0).unwrap();
        };
        let bell = |chunk: u64| view.range(SLAB_BELLS + chunk, 1).unwrap().read_obj::<u8>(0).unwrap();
        assert!(view.ring(3), "without bells");
        assert_eq!(bell(3), 0);
        store(SLAB_PRESENT, 1);
        assert!(view.ring(3), "asleep");
        assert_eq!(bell(3), 1);
        assert!(!view.ring(3), "the earlier ring covers it");
        assert!(view.ring(4), "another DMB");
        store(SLAB_AWAKE, 1);
        assert!(!view.ring(5), "awake");
        assert_eq!([bell(3), bell(4), bell(5), bell(6)], [1, 1, 1, 0]);
    }
}
