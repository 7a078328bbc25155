//! Indexes of a ring of entries that the device writes and the guest reads: CQEs or EQEs.

use serde::Serialize;

/// Producer and consumer indexes count entries modulo 2^24.
pub(super) const INDEX_MASK: u32 = 0xff_ffff;

/// A ring of `2^log_size` entries, at most 2^22. Each has an owner bit, whose value changes with every lap of the
/// producer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct EntryRing {
    pub(super) log_size: u8,
    /// Index of the next entry the device writes.
    pub(super) producer: u32,
    /// Index of the next entry the guest reads, as far as the device knows.
    consumer: u32,
}

impl EntryRing {
    pub(super) fn new(log_size: u8) -> Self {
        Self {
            log_size,
            producer: 0,
            consumer: 0,
        }
    }

    #[inline]
    pub(super) fn size(&self) -> u32 {
        1 << self.log_size
    }

    #[inline]
    pub(super) fn consumer(&self) -> u32 {
        self.consumer
    }

    #[inline]
    pub(super) fn set_consumer(&mut self, index: u32) {
        self.consumer = index & INDEX_MASK;
    }

    /// Number of entries the guest has not read.
    #[inline]
    pub(super) fn unread(&self) -> u32 {
        self.producer.wrapping_sub(self.consumer) & INDEX_MASK
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        !self.has_room_after(0)
    }

    /// Whether there is room for an entry behind the next `entries`.
    #[inline]
    pub(super) fn has_room_after(&self, entries: u32) -> bool {
        self.unread() + entries < self.size()
    }

    /// Position of the next entry in the ring.
    #[inline]
    pub(super) fn slot(&self) -> u32 {
        self.slot_after(0)
    }

    /// Position of the entry that is `entries` behind the next one.
    #[inline]
    pub(super) fn slot_after(&self, entries: u32) -> u32 {
        self.producer.wrapping_add(entries) % self.size()
    }

    /// Owner bit of the next entry.
    #[inline]
    pub(super) fn owner(&self) -> u8 {
        (self.producer >> self.log_size) as u8 & 1
    }

    /// Counts the entry that was just written.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.advance_by(1);
    }

    /// Counts entries that were just written.
    #[inline]
    pub(super) fn advance_by(&mut self, entries: u32) {
        self.producer = self.producer.wrapping_add(entries) & INDEX_MASK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_bit_changes_with_every_lap_also_where_indexes_wrap() {
        let mut ring = EntryRing {
            log_size: 1,
            producer: INDEX_MASK - 3,
            consumer: INDEX_MASK - 3,
        };
        let seen: Vec<_> = (0..6)
            .map(|_| {
                let entry = (ring.slot(), ring.owner());
                ring.advance();
                entry
            })
            .collect();
        assert_eq!(seen, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 0)]);
        assert_eq!(ring.producer, 2);
    }

    #[test]
    fn a_ring_is_full_when_the_guest_has_read_none_of_its_entries() {
        let mut ring = EntryRing::new(1);
        ring.advance();
        assert!(!ring.is_full());
        ring.advance();
        assert!(ring.is_full());
        ring.set_consumer(1 << 24 | 1);
        assert_eq!((ring.is_full(), ring.unread()), (false, 1));
    }
}
