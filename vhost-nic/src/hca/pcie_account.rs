//! The PCIe account: transactions that the guest's work takes on the bus, by kind.
//!
//! The transactions are those of the modelled device, not the accesses of this program: a function of what the guest
//! posts, whatever the host's scheduler does meanwhile. A request counts once, even if the bus splits it into several
//! TLPs. See `docs/pcie-account.md`.

use std::ops::{AddAssign, Range};

use serde::Serialize;

/// Transactions of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Transactions {
    /// Number of transactions.
    pub count: u64,
    /// Bytes that they move.
    pub bytes: u64,
}

impl Transactions {
    /// Counts transactions that move `bytes` in total.
    #[inline]
    pub fn add(&mut self, count: u64, bytes: u64) {
        self.count += count;
        self.bytes += bytes;
    }

    /// Counts the data of a range of a message that begins at a packet of at most `mtu` bytes: a transaction for each
    /// segment that a packet touches. `segments` are the lengths of the message's segments, and whether each is in
    /// memory.
    #[inline]
    pub fn add_packets(&mut self, segments: impl Iterator<Item = (usize, bool)>, range: Range<usize>, mtu: usize) {
        let single = range.len() <= mtu;
        let mut at = 0;
        for (length, in_memory) in segments {
            let (from, until) = (at.max(range.start), (at + length).min(range.end));
            if in_memory && from < until {
                let packets = if single { 1 } else { until.div_ceil(mtu) - from / mtu };
                self.add(packets as u64, (until - from) as u64);
            }
            at += length;
            if at >= range.end {
                break;
            }
        }
    }
}

impl AddAssign for Transactions {
    fn add_assign(&mut self, other: Self) {
        self.add(other.count, other.bytes);
    }
}

/// Transactions that announce and fetch the WQEs of a send queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SendAccount {
    /// MMIO writes of doorbells.
    pub doorbells: Transactions,
    /// MMIO writes of WQEs (BlueFlame), of a basic block each.
    pub blue_flame: Transactions,
    /// DMA reads of WQEs.
    pub wqe_reads: Transactions,
}

/// Transactions of the data of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PayloadAccount {
    /// DMA reads.
    pub reads: Transactions,
    /// DMA writes.
    pub writes: Transactions,
}

/// Transactions of a function or of one of its objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PcieAccount {
    /// MMIO writes of send doorbells.
    pub doorbells: Transactions,
    /// MMIO writes of WQEs (BlueFlame), of a basic block each.
    pub blue_flame: Transactions,
    /// MMIO writes that arm completion queues.
    pub cq_doorbells: Transactions,
    /// MMIO writes that arm or update event queues.
    pub eq_doorbells: Transactions,
    /// DMA reads of send WQEs.
    pub send_wqe_reads: Transactions,
    /// DMA reads of receive WQEs.
    pub receive_wqe_reads: Transactions,
    /// DMA reads of the data of messages.
    pub payload_reads: Transactions,
    /// DMA writes of the data of messages.
    pub payload_writes: Transactions,
    /// DMA writes of CQEs.
    pub cqe_writes: Transactions,
    /// DMA writes of EQEs.
    pub eqe_writes: Transactions,
    /// MSI-X messages.
    pub interrupts: Transactions,
}

impl PcieAccount {
    /// Adds those of a send queue.
    pub fn add_sends(&mut self, account: SendAccount) {
        self.doorbells += account.doorbells;
        self.blue_flame += account.blue_flame;
        self.send_wqe_reads += account.wqe_reads;
    }

    /// Adds those of data.
    pub fn add_payload(&mut self, account: PayloadAccount) {
        self.payload_reads += account.reads;
        self.payload_writes += account.writes;
    }
}

impl AddAssign for PcieAccount {
    fn add_assign(&mut self, other: Self) {
        let Self {
            doorbells,
            blue_flame,
            cq_doorbells,
            eq_doorbells,
            send_wqe_reads,
            receive_wqe_reads,
            payload_reads,
            payload_writes,
            cqe_writes,
            eqe_writes,
            interrupts,
        } = other;
        self.doorbells += doorbells;
        self.blue_flame += blue_flame;
        self.cq_doorbells += cq_doorbells;
        self.eq_doorbells += eq_doorbells;
        self.send_wqe_reads += send_wqe_reads;
        self.receive_wqe_reads += receive_wqe_reads;
        self.payload_reads += payload_reads;
        self.payload_writes += payload_writes;
        self.cqe_writes += cqe_writes;
        self.eqe_writes += eqe_writes;
        self.interrupts += interrupts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(segments: &[(usize, bool)], range: Range<usize>, mtu: usize) -> (u64, u64) {
        let mut transactions = Transactions::default();
        transactions.add_packets(segments.iter().copied(), range, mtu);
        (transactions.count, transactions.bytes)
    }

    #[test]
    fn a_packet_reads_each_of_its_segments_once() {
        assert_eq!(packets(&[(64, true)], 0..64, 1024), (1, 64));
        assert_eq!(packets(&[(64, false)], 0..64, 1024), (0, 0));
        assert_eq!(packets(&[], 0..0, 1024), (0, 0));
        assert_eq!(packets(&[(10, true), (20, false), (30, true)], 0..60, 1024), (2, 40));
        assert_eq!(packets(&[(3000, true)], 0..3000, 1024), (3, 3000));
        // The boundary at 1500 is within the second packet, which reads of both.
        assert_eq!(packets(&[(1500, true), (1500, true)], 0..3000, 1024), (4, 3000));
        // That at 2048 is between packets.
        assert_eq!(packets(&[(2048, true), (952, true)], 0..3000, 1024), (3, 3000));
        // The last two packets, retransmitted.
        assert_eq!(packets(&[(1500, true), (1500, true)], 1024..3000, 1024), (3, 1976));
        // More room than data, as in a receive WQE.
        assert_eq!(packets(&[(100, true), (4096, true)], 0..64, 1024), (1, 64));
    }
}
