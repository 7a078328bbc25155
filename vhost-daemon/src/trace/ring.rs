//! A ring of records with one writer; readers copy what is not overwritten meanwhile.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use zerocopy::{FromBytes, IntoBytes};

use super::event::Record;

const WORDS: usize = size_of::<Record>() / 8;

/// The latest records of one thread.
///
/// The writer never waits. A reader may see a record that is being overwritten; it finds out from the number of
/// records written, which it reads again after the copy, and drops such records (a seqlock whose sequence is that
/// number).
#[derive(Debug)]
pub struct Ring {
    /// Name of the writing thread.
    pub thread: String,
    slots: Box<[[AtomicU64; WORDS]]>,
    written: AtomicU64,
}

impl Ring {
    /// Creates a ring of at least `bytes`, rounded up to a power of two.
    pub fn new(thread: String, bytes: u64) -> Self {
        let capacity = (bytes / size_of::<Record>() as u64).max(2).next_power_of_two();
        Self {
            thread,
            slots: (0..capacity).map(|_| Default::default()).collect(),
            written: AtomicU64::new(0),
        }
    }

    /// Records that the ring holds.
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Number of records written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Appends a record. Only the ring's thread may call this.
    pub fn push(&self, record: Record) {
        let written = self.written.load(Ordering::Relaxed);
        // A reader that sees any word of the new record sees that the ones before it are complete.
        fence(Ordering::Release);
        for (slot, word) in self.slot(written).iter().zip(record.as_bytes().as_chunks::<8>().0) {
            slot.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        self.written.store(written + 1, Ordering::Release);
    }

    /// Appends the records from number `from` on to `records`, and returns the number of the first of them: it is
    /// larger than `from` by the number of records lost.
    pub fn read(&self, from: u64, records: &mut Vec<Record>) -> u64 {
        let end = self.written();
        let begin = from.max(end.saturating_sub(self.capacity()));
        let old = records.len();
        for number in begin..end {
            let mut record = [0_u64; WORDS];
            for (word, slot) in record.iter_mut().zip(self.slot(number)) {
                *word = slot.load(Ordering::Relaxed);
            }
            if let Ok(record) = Record::read_from_bytes(record.as_bytes()) {
                records.push(record);
            }
        }
        fence(Ordering::Acquire);
        // The writer may be writing one more.
        let intact = (self.written.load(Ordering::Relaxed) + 1).saturating_sub(self.capacity());
        let torn = intact.saturating_sub(begin).min(end - begin);
        records.drain(old..old + torn as usize);
        begin + torn
    }

    fn slot(&self, number: u64) -> &[AtomicU64; WORDS] {
        // A power of two.
        &self.slots[(number & (self.capacity() - 1)) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn record(number: u64) -> Record {
        Record {
            time: number.into(),
            event: (number as u16).into(),
            guest: (number as u16).into(),
            object: (number as u32).into(),
            arguments: [(number as u32).into(); 4],
        }
    }

    #[test]
    fn what_is_overwritten_is_counted_as_lost() {
        let ring = Ring::new(String::new(), 1 << 16);
        assert_eq!(ring.capacity(), 2048);
        let total = ring.capacity() + 10;
        for number in 0..total {
            ring.push(record(number));
        }
        let mut records = Vec::new();
        // One less than the capacity: the writer might be about to overwrite the oldest.
        assert_eq!(ring.read(3, &mut records), 11);
        let expected: Vec<Record> = (11..total).map(record).collect();
        assert_eq!(records, expected);
        records.clear();
        assert_eq!(ring.read(total - 2, &mut records), total - 2);
        assert_eq!(records, [record(total - 2), record(total - 1)]);
    }

    #[test]
    fn a_size_is_rounded_up_to_a_power_of_two() {
        for (bytes, capacity) in [(0, 2), (64, 2), (96, 4), (1 << 20, 1 << 15), ((1 << 20) + 32, 1 << 16)] {
            assert_eq!(Ring::new(String::new(), bytes).capacity(), capacity, "{bytes} bytes");
        }
    }

    #[test]
    fn no_record_is_read_half_overwritten() {
        let ring = Arc::new(Ring::new(String::new(), 2 << 20));
        let total = 20 * ring.capacity();
        let writer = thread::spawn({
            let ring = ring.clone();
            move || (0..total).for_each(|number| ring.push(record(number)))
        });
        let (mut next, mut seen) = (0, 0);
        while next < total {
            let mut records = Vec::new();
            let begin = ring.read(next, &mut records);
            for (number, found) in (begin..).zip(&records) {
                assert_eq!(*found, record(number));
            }
            next = begin + records.len() as u64;
            seen += records.len();
        }
        writer.join().unwrap();
        assert!(seen > 0);
    }
}
