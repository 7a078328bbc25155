//! Model time of the PCIe transactions that messages wait for (`--pcie-latency`), spent on the thread of the sender.

use super::endpoint::Endpoint;
use super::execute::is_inline;
use super::send_wqe::Reader;
use crate::hca::pcie_latency::{PcieLatency, Transaction};
use crate::hca::qp::Requester;
use crate::net::SuperPacket;
use crate::roce::opcode::Operation;

/// Progress of a requester before it makes a batch.
pub(super) struct Progress {
    fetched: u16,
    payload_reads: u64,
}

/// Transactions of a batch that is about to be sent.
#[derive(Clone, Copy, Default)]
pub(super) struct Waits {
    posted: bool,
    ring_read: bool,
    payload_read: bool,
}

impl Progress {
    pub fn of(requester: &Requester) -> Self {
        Self {
            fetched: requester.fetched(),
            payload_reads: requester.payload().reads.count,
        }
    }

    /// The transactions since then.
    pub fn until(&self, requester: &Requester, reader: &mut Reader<'_>) -> Waits {
        let now = Self::of(requester);
        Waits {
            posted: now.fetched != self.fetched,
            ring_read: reader.take_ring_read(),
            payload_read: now.payload_reads != self.payload_reads,
        }
    }
}

impl Waits {
    /// Spends the time of the transactions. The caller must not hold the queue pair's locks.
    pub fn spend(self, latency: &PcieLatency) {
        let transactions = [
            (self.posted, Transaction::MmioWrite),
            (self.ring_read, Transaction::WqeRead),
            (self.payload_read, Transaction::PayloadRead),
        ];
        for (_, transaction) in transactions.into_iter().filter(|(waits, _)| *waits) {
            latency.spend(transaction);
        }
    }
}

/// Spends the time of the transactions that requests cause at a responder. The caller must not hold its locks.
pub(super) fn before_requests(endpoint: &Endpoint<'_>, super_packets: &[&SuperPacket<'_>]) {
    let latency = &endpoint.hca().pcie_latency;
    if !latency.is_on() {
        return;
    }
    let mut batch = latency.batch();
    for super_packet in super_packets {
        let head = &super_packet.head;
        let (operation, position) = (head.opcode.operation(), head.opcode.position());
        let (send, immediate) = (operation == Operation::Send, head.headers.immediate.is_some());
        if send && position.begins() || immediate {
            batch.spend(Transaction::WqeRead);
        }
        match operation {
            Operation::ReadRequest => batch.spend(Transaction::PayloadRead),
            Operation::CompareSwap | Operation::FetchAdd => {
                batch.spend(Transaction::PayloadRead);
                batch.spend(Transaction::PayloadWrite);
            }
            _ if super_packet.payload.is_empty() || send && is_inline(endpoint.parameters, super_packet) => {}
            _ => batch.spend(Transaction::PayloadWrite),
        }
        if send && position.ends() || immediate {
            batch.spend(Transaction::CqeWrite);
        }
    }
}

/// Spends the time of the transactions that a datagram causes. The caller must not hold the queue pair's locks.
pub(super) fn before_datagram(endpoint: &Endpoint<'_>) {
    let latency = &endpoint.hca().pcie_latency;
    for transaction in [Transaction::WqeRead, Transaction::PayloadWrite, Transaction::CqeWrite] {
        latency.spend(transaction);
    }
}
