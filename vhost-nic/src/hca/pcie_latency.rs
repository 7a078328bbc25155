//! Model of the time that PCIe transactions take.
//!
//! A read takes a round trip, as the device waits for its completion; a posted write takes half of one. Transactions of
//! one kind and one batch of work overlap: together they take the time of one.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A kind of transaction that takes time on the way of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Transaction {
    /// MMIO write of a doorbell or a WQE.
    MmioWrite,
    /// DMA read of WQEs.
    WqeRead,
    /// DMA read of data.
    PayloadRead,
    /// DMA write of data.
    PayloadWrite,
    /// DMA write of CQEs.
    CqeWrite,
    /// DMA write of an EQE.
    EqeWrite,
    /// MSI-X message.
    Interrupt,
}

/// Time of a function's PCIe transactions; none by default.
#[derive(Debug, Default)]
pub struct PcieLatency {
    round_trip: Duration,
    spent_ns: AtomicU64,
}

impl PcieLatency {
    /// Transactions that take this time for a round trip.
    pub fn new(round_trip: Duration) -> Self {
        Self {
            round_trip,
            ..Self::default()
        }
    }

    /// Whether transactions take time.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.round_trip.is_zero()
    }

    /// Model time spent so far, in nanoseconds.
    pub fn spent_ns(&self) -> u64 {
        self.spent_ns.load(Ordering::Relaxed)
    }

    /// Begins a batch of work.
    #[inline]
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            latency: self,
            spent: 0,
        }
    }

    /// Spends the time of a transaction that is a batch of its own.
    #[inline]
    pub fn spend(&self, transaction: Transaction) {
        self.batch().spend(transaction);
    }

    fn time(&self, transaction: Transaction) -> Duration {
        match transaction {
            Transaction::WqeRead | Transaction::PayloadRead => self.round_trip,
            _ => self.round_trip / 2,
        }
    }
}

/// Transactions of a batch of work, of which each kind takes its time once.
#[derive(Debug)]
pub struct Batch<'a> {
    latency: &'a PcieLatency,
    /// A bit for each kind whose time was spent.
    spent: u8,
}

impl Batch<'_> {
    /// Spends the time of a transaction, unless one of its kind was in the batch before. Occupies the processor
    /// meanwhile: the times are shorter than those of a sleep.
    #[inline]
    pub fn spend(&mut self, transaction: Transaction) {
        let bit = 1 << transaction as u8;
        if !self.latency.is_on() || self.spent & bit != 0 {
            return;
        }
        self.spent |= bit;
        let time = self.latency.time(transaction);
        let end = Instant::now() + time;
        while Instant::now() < end {
            hint::spin_loop();
        }
        self.latency
            .spent_ns
            .fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_a_round_trip_and_a_write_half_of_it_once_in_a_batch() {
        let latency = PcieLatency::new(Duration::from_nanos(250));
        let mut batch = latency.batch();
        for (transaction, spent) in [
            (Transaction::MmioWrite, 125),
            (Transaction::WqeRead, 375),
            (Transaction::WqeRead, 375),
            (Transaction::PayloadRead, 625),
            (Transaction::PayloadWrite, 750),
            (Transaction::CqeWrite, 875),
            (Transaction::MmioWrite, 875),
            (Transaction::EqeWrite, 1000),
            (Transaction::Interrupt, 1125),
        ] {
            batch.spend(transaction);
            assert_eq!(latency.spent_ns(), spent, "{transaction:?}");
        }
        latency.spend(Transaction::WqeRead);
        assert_eq!(latency.spent_ns(), 1375);
    }

    #[test]
    fn without_a_round_trip_no_time_is_spent() {
        let latency = PcieLatency::default();
        latency.spend(Transaction::WqeRead);
        assert_eq!((latency.is_on(), latency.spent_ns()), (false, 0));
    }
}
