//! Doorbells of a queue, and the WQE that came with the last of them.

use mlx5_prm::wqe::SEND_WQE_BB;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::{BlueFlameWqe, DOORBELL};
use crate::hca::pcie_account::SendAccount;

/// Half of the index space: an index farther ahead lies behind.
const HALF_RING: u16 = u16::MAX / 2;

/// Doorbells and the last WQE that arrived for a queue. The doorbell record is ahead of them: a WQE whose copy is in
/// flight is posted already.
#[derive(Debug, Default)]
pub struct Slot(Mutex<SlotState>);

#[derive(Debug, Default)]
struct SlotState {
    arrived: Arrived,
    /// End of the WQEs that were announced, in basic blocks.
    announced: u16,
    /// Index in the last plain doorbell.
    named: Option<u16>,
    account: SendAccount,
}

/// Contents of a [`Slot`].
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    /// The last WQE, until it is taken. A late one is worthless, as it is in the ring as well.
    pub wqe: Option<BlueFlameWqe>,
    /// End of the WQEs that doorbells and copies have covered; `None` before the first.
    end: Option<u16>,
}

impl Slot {
    /// Records a WQE, the last one posted.
    pub fn put(&self, wqe: BlueFlameWqe) {
        let blocks = wqe.bytes.len().div_ceil(SEND_WQE_BB) as u16;
        let slot = &mut *self.0.lock();
        slot.account_wqe(wqe.index, blocks);
        slot.arrived.advance(wqe.index.wrapping_add(blocks));
        slot.arrived.wqe = Some(wqe);
    }

    /// Records a doorbell: WQEs up to `end` must be executed from the ring. Later ones have doorbells of their own.
    pub fn ring(&self, end: u16) {
        let slot = &mut *self.0.lock();
        slot.account_doorbell(end);
        slot.arrived.advance(end);
    }

    /// Accounts for a doorbell while BlueFlame is off: WQEs up to `end` are executed once they are posted.
    pub fn announce(&self, end: u16) {
        self.0.lock().account_doorbell(end);
    }

    /// Clears the slot for a queue in reset; the account stays.
    pub fn clear(&self) {
        let slot = &mut *self.0.lock();
        (slot.arrived, slot.announced, slot.named) = (Arrived::default(), 0, None);
    }

    /// Records the index in a plain doorbell; returns whether the one before named the same.
    pub fn names_again(&self, index: u16) -> bool {
        self.0.lock().named.replace(index) == Some(index)
    }

    /// The transactions so far.
    pub fn account(&self) -> SendAccount {
        self.0.lock().account
    }

    /// Returns the contents, the WQE only once.
    pub fn take(&self) -> Arrived {
        let arrived = &mut self.0.lock().arrived;
        Arrived {
            wqe: arrived.wqe.take(),
            end: arrived.end,
        }
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.account().serialize(serializer)
    }
}

impl SlotState {
    fn account_doorbell(&mut self, end: u16) {
        self.account.doorbells.add(1, DOORBELL as u64);
        self.account_fetch(end);
    }

    /// A WQE in a register is not fetched, but the WQEs before it are. Write combining makes a write of each basic
    /// block. A WQE whose beginning was taken for a doorbell counts as that.
    fn account_wqe(&mut self, index: u16, blocks: u16) {
        let end = index.wrapping_add(blocks);
        if end == self.announced {
            return;
        }
        self.account_fetch(index);
        if end.wrapping_sub(self.announced) <= HALF_RING {
            self.announced = end;
        }
        self.account.blue_flame.add(blocks.into(), bytes(blocks));
    }

    /// The WQEs that a doorbell announces are fetched at once.
    fn account_fetch(&mut self, end: u16) {
        let blocks = end.wrapping_sub(self.announced);
        if (1..=HALF_RING).contains(&blocks) {
            self.announced = end;
            self.account.wqe_reads.add(1, bytes(blocks));
        }
    }
}

/// Bytes of basic blocks.
fn bytes(blocks: u16) -> u64 {
    u64::from(blocks) * SEND_WQE_BB as u64
}

impl Arrived {
    /// Advances the end, unless it is farther ahead already: doorbells arrive in order, but whether a copied WQE is
    /// complete may turn out only after a later doorbell.
    fn advance(&mut self, end: u16) {
        if self.end.is_none_or(|before| end.wrapping_sub(before) <= HALF_RING) {
            self.end = Some(end);
        }
    }

    /// Returns the end of the WQEs from `consumer` to `producer` that may be executed.
    pub fn limit(&self, consumer: u16, producer: u16) -> u16 {
        let Some(end) = self.end else { return producer };
        let (posted, arrived) = (producer.wrapping_sub(consumer), end.wrapping_sub(consumer));
        match arrived {
            ..=HALF_RING => consumer.wrapping_add(arrived.min(posted)),
            _ => consumer,
        }
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::hca::pcie_account::Transactions;

    fn wqe(index: u16, bytes: usize) -> BlueFlameWqe {
        BlueFlameWqe {
            index,
            bytes: SmallVec::from_elem(0, bytes),
        }
    }

    #[test]
    fn nothing_is_carried_out_before_its_copy() {
        let slot = Slot::default();
        assert_eq!(slot.take().limit(3, 9), 9);
        slot.put(wqe(0xffff, 80));
        let arrived = slot.take();
        assert!(arrived.wqe.is_some() && slot.take().wqe.is_none());
        for (consumer, producer, limit) in [
            (0xfffe, 9, 1),
            (0xfffe, 0, 0),
            (1, 9, 1),
            (5, 9, 5),
            (0xfffe, 0xfffe, 0xfffe),
        ] {
            assert_eq!(arrived.limit(consumer, producer), limit);
        }
        slot.ring(3);
        assert_eq!(slot.take().limit(1, 9), 3);
        // The doorbell of an earlier WQE.
        slot.ring(2);
        assert_eq!(slot.take().limit(1, 9), 3);
    }

    #[test]
    fn a_doorbell_fetches_what_it_is_the_first_to_announce() {
        let slot = Slot::default();
        let doorbells = |count| Transactions {
            count,
            bytes: 8 * count,
        };
        let mut expected = SendAccount::default();
        // Four WQEs at once, the same again, an older one, and over the end of the index space.
        for (end, reads, bytes) in [
            (4, 1, 256),
            (4, 0, 0),
            (2, 0, 0),
            (0x7000, 1, 0x6ffc * 64),
            (0xe000, 1, 0x7000 * 64),
            (1, 1, 0x2001 * 64),
        ] {
            slot.announce(end);
            expected.doorbells += doorbells(1);
            expected.wqe_reads.add(reads, bytes);
            assert_eq!(slot.account(), expected, "{end:#x}");
        }
        slot.clear();
        slot.ring(1);
        expected.doorbells += doorbells(1);
        expected.wqe_reads.add(1, 64);
        assert_eq!(slot.account(), expected, "after a reset");
    }

    #[test]
    fn a_copied_wqe_is_written_and_not_fetched() {
        let slot = Slot::default();
        slot.put(wqe(0, 80));
        let mut expected = SendAccount::default();
        expected.blue_flame.add(2, 128);
        assert_eq!(slot.account(), expected);
        // A WQE without a doorbell is before it.
        slot.put(wqe(3, 64));
        expected.blue_flame.add(1, 64);
        expected.wqe_reads.add(1, 64);
        assert_eq!(slot.account(), expected);
        // A WQE whose beginning was taken for a doorbell.
        slot.ring(5);
        slot.put(wqe(4, 64));
        expected.doorbells.add(1, 8);
        expected.wqe_reads.add(1, 64);
        assert_eq!(slot.account(), expected);
    }
}
