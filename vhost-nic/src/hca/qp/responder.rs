//! Responder state: sequence numbers, the message in progress, and recent reads and atomics of a receive queue.

use std::collections::VecDeque;
use std::sync::Arc;

use mlx5_prm::wqe::DataSegment;
use serde::Serialize;

use crate::hca::pcie_account::{PayloadAccount, Transactions};
use crate::hca::srq::XrcSrq;
use crate::roce::psn::Psn;

/// MSNs have 24 bits.
const MSN_MASK: u32 = 0xff_ffff;

/// A receive WQE taken from its queue.
#[derive(Debug, Clone)]
pub struct Receive {
    /// Index that the completion names.
    pub wqe_counter: u16,
    /// Protection domain of its keys: that of the queue it was posted to.
    pub pd: u32,
    /// Scatter list.
    pub segments: Vec<DataSegment>,
    /// Length of the scatter list in bytes.
    pub room: u64,
    /// The shared receive queue that it was posted to and completes for, of an XRC message.
    pub srq: Option<Arc<XrcSrq>>,
}

/// Most bytes of a message (IBTA 9.7.7.1.4): lengths in completions and in the progress of a message have 32 bits.
const MAX_MESSAGE: u64 = 1 << 31;

impl Receive {
    /// Whether a message of this length fits.
    pub fn takes(&self, length: u64) -> bool {
        length <= self.room.min(MAX_MESSAGE)
    }

    /// Lengths of the segments, all of which are in memory.
    pub fn lengths(&self) -> impl Iterator<Item = (usize, bool)> {
        self.segments
            .iter()
            .map(|segment| (segment.byte_count.get() as usize, true))
    }
}

/// A message whose remaining packets are expected.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "fields are named as in the RETH")]
pub enum Incoming {
    Send {
        receive: Receive,
        received: u32,
    },
    Write {
        address: u64,
        rkey: u32,
        length: u32,
        received: u32,
    },
}

/// A read or an atomic that was answered, kept in case the response is lost.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    /// PSN of the request.
    pub psn: Psn,
    /// Number of PSNs of the request and its response.
    pub packets: u32,
    /// Original value, of an atomic.
    pub original: Option<u64>,
}

/// Responder state of a queue pair.
#[derive(Debug, Serialize)]
pub struct Responder {
    consumer: u16,
    expected: Psn,
    msn: u32,
    #[serde(skip)]
    incoming: Option<Incoming>,
    /// Oldest first.
    #[serde(skip)]
    resources: VecDeque<Resource>,
    gap_reported: bool,
    last_wqe_reported: bool,
    /// Unreliable: the rest of a message with a gap is dropped.
    skipping: bool,
    /// Unreliable: the receive WQE of a message that was cut off, for the next one.
    #[serde(skip)]
    spare: Option<Receive>,
    /// DMA reads of receive WQEs.
    wqe_reads: Transactions,
    payload: PayloadAccount,
}

impl Responder {
    pub(super) fn new() -> Self {
        Self {
            consumer: 0,
            expected: Psn::default(),
            msn: 0,
            incoming: None,
            resources: VecDeque::new(),
            gap_reported: false,
            last_wqe_reported: false,
            skipping: false,
            spare: None,
            wqe_reads: Transactions::default(),
            payload: PayloadAccount::default(),
        }
    }

    /// Resets everything but the account.
    pub(super) fn reset(&mut self) {
        *self = Self {
            wqe_reads: self.wqe_reads,
            payload: self.payload,
            ..Self::new()
        };
    }

    /// Sets the PSN of the first packet.
    pub(super) fn start_at(&mut self, psn: Psn) {
        self.expected = psn;
    }

    /// PSN of the next packet.
    pub fn expected(&self) -> Psn {
        self.expected
    }

    /// Number of completed messages (MSN, 24 bits).
    pub fn msn(&self) -> u32 {
        self.msn
    }

    /// Advances the expected PSN by `packets`.
    pub fn advance(&mut self, packets: u32) {
        self.expected += packets;
    }

    /// Sets the expected PSN back to `psn`.
    pub fn rewind(&mut self, psn: Psn) {
        self.expected = psn;
    }

    /// Returns whether the gap before the packets that arrive was reported before, and marks it as reported.
    pub fn report_gap(&mut self) -> bool {
        std::mem::replace(&mut self.gap_reported, true)
    }

    /// Marks the gap as filled.
    pub fn close_gap(&mut self) {
        self.gap_reported = false;
    }

    /// Returns whether the "last WQE" event was reported before, and marks it as reported.
    pub fn report_last_wqe(&mut self) -> bool {
        std::mem::replace(&mut self.last_wqe_reported, true)
    }
}

/// The PCIe account.
impl Responder {
    /// The reads of receive WQEs so far.
    pub fn wqe_reads(&self) -> Transactions {
        self.wqe_reads
    }

    /// The transactions of data so far.
    pub fn payload(&self) -> PayloadAccount {
        self.payload
    }

    /// Accounts for the read of a receive WQE.
    pub fn account_receive_wqe(&mut self, bytes: usize) {
        self.wqe_reads.add(1, bytes as u64);
    }

    /// Accounts for data that packets brought.
    pub fn account_written(&mut self, written: Transactions) {
        self.payload.writes += written;
    }

    /// Accounts for data that packets carry back.
    pub fn account_read(&mut self, packets: u32, bytes: usize) {
        if bytes > 0 {
            self.payload.reads.add(packets.into(), bytes as u64);
        }
    }
}

/// Receive WQEs.
impl Responder {
    /// Index of the next WQE of the queue pair's own receive queue.
    pub fn consumer(&self) -> u16 {
        self.consumer
    }

    /// Consumes a WQE of the queue pair's own receive queue.
    pub fn consume(&mut self) {
        self.consumer = self.consumer.wrapping_add(1);
    }

    /// Takes the receive WQE that was put back, if any.
    pub fn take_spare(&mut self) -> Option<Receive> {
        self.spare.take()
    }

    /// Puts a receive WQE back, for the next message.
    pub fn put_back(&mut self, receive: Receive) {
        self.spare = Some(receive);
    }

    /// The receive WQE of the send in progress, or the one that was put back for it to begin again.
    pub fn receive_in_use(&self) -> Option<&Receive> {
        match &self.incoming {
            Some(Incoming::Send { receive, .. }) => Some(receive),
            Some(Incoming::Write { .. }) | None => self.spare.as_ref(),
        }
    }

    /// Ends the message in progress, and takes its receive WQE and the one that was put back.
    pub fn take_receives(&mut self) -> impl Iterator<Item = Receive> + use<> {
        let started = match self.incoming.take() {
            Some(Incoming::Send { receive, .. }) => Some(receive),
            _ => None,
        };
        started.into_iter().chain(self.spare.take())
    }
}

/// The message in progress.
impl Responder {
    /// The message in progress, if more packets of one are expected.
    pub fn incoming(&self) -> Option<&Incoming> {
        self.incoming.as_ref()
    }

    /// Begins a send.
    pub fn begin_send(&mut self, receive: Receive) {
        self.incoming = Some(Incoming::Send { receive, received: 0 });
    }

    /// Begins an RDMA write.
    pub fn begin_write(&mut self, address: u64, rkey: u32, length: u32) {
        self.incoming = Some(Incoming::Write {
            address,
            rkey,
            length,
            received: 0,
        });
    }

    /// Adds bytes to the message in progress.
    pub fn accept(&mut self, bytes: u32) {
        match &mut self.incoming {
            Some(Incoming::Send { received, .. } | Incoming::Write { received, .. }) => *received += bytes,
            None => {}
        }
    }

    /// Completes a message.
    pub fn complete_message(&mut self) {
        self.incoming = None;
        self.msn = self.msn.wrapping_add(1) & MSN_MASK;
    }

    /// Drops the message in progress with its receive WQE.
    pub fn drop_message(&mut self) {
        self.incoming = None;
    }

    /// Drops the message in progress and puts its receive WQE back, for the next message.
    pub fn abandon_message(&mut self) {
        if let Some(Incoming::Send { receive, .. }) = self.incoming.take() {
            self.spare = Some(receive);
        }
    }

    /// Expects the packet behind those from `psn` on, of an unreliable service, whether or not a gap is before them.
    /// Returns whether they are accepted: a message with a gap is dropped as a whole.
    pub fn accept_unreliable(&mut self, psn: Psn, packets: u32, begins: bool) -> bool {
        let cut = psn != self.expected || begins;
        if cut {
            self.abandon_message();
            self.skipping = !begins;
        }
        self.expected = psn + packets;
        !self.skipping
    }

    /// Drops the message in progress and what follows of it.
    pub fn skip_message(&mut self) {
        self.abandon_message();
        self.skipping = true;
    }
}

/// Reads and atomics.
impl Responder {
    /// Remembers an answered read or atomic, and forgets the oldest ones beyond `limit`.
    pub fn remember(&mut self, resource: Resource, limit: usize) {
        while self.resources.len() >= limit {
            self.resources.pop_front();
        }
        self.resources.push_back(resource);
    }

    /// Whether a read with `packets` response packets repeats the end of one that was answered (IBTA 9.7.5.1.3).
    pub fn repeats_read(&self, psn: Psn, packets: u32) -> bool {
        self.resources.iter().any(|resource| {
            let end = resource.psn + resource.packets;
            resource.original.is_none()
                && psn.is_within(resource.psn, end - 1)
                && psn.distance(end).unsigned_abs() == packets
        })
    }

    /// The original value that an answered atomic returned.
    pub fn atomic_original(&self, psn: Psn) -> Option<u64> {
        let resource = self.resources.iter().find(|resource| resource.psn == psn)?;
        resource.original
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_before_its_length_wraps() {
        let receive = Receive {
            wqe_counter: 0,
            pd: 1,
            segments: Vec::new(),
            room: 5 << 30,
            srq: None,
        };
        let takes = [0, 1 << 31, (1 << 31) + 1, 1 << 32, 5 << 30].map(|length| receive.takes(length));
        assert_eq!(takes, [true, true, false, false, false]);
        let small = Receive { room: 7, ..receive };
        assert_eq!([7, 8].map(|length| small.takes(length)), [true, false]);
    }
}
