//! Packets of a requester without an acknowledgement: when one is requested, and how much is sent before it arrives.
//!
//! A peer at the switch acknowledges before its packets are sent. Between a distant one and the requester is a queue.

use serde::Serialize;

use crate::roce::psn::Psn;

/// Limit on unacknowledged bytes to a distant peer: the delay of the queue in between must stay below the
/// acknowledgement timeout. That of rdma_rxe is 128 packets (`RXE_MAX_UNACKED_PSNS`).
const WINDOW: usize = 128 << 10;

/// Requests of acknowledgements, and the limit on what is sent without one.
#[derive(Debug, Default, Serialize)]
pub(super) struct SendWindow {
    /// Packets since the last acknowledgement request.
    unrequested: u32,
    /// PSN behind the last packet with an acknowledgement request.
    #[serde(skip)]
    requested: Psn,
    /// The peer acknowledges before its packets are sent; unknown peers are taken for distant ones.
    #[serde(skip)]
    near: bool,
}

impl SendWindow {
    /// Sets the PSN of the first packet.
    pub fn start_at(&mut self, psn: Psn) {
        self.requested = psn;
    }

    /// Counts packets that are about to be sent. Returns those since the last acknowledgement request.
    pub fn count(&mut self, packets: u32) -> u32 {
        self.unrequested = self.unrequested.saturating_add(packets);
        self.unrequested
    }

    /// Notes that an acknowledgement of all packets before `psn` was requested.
    pub fn acknowledgement_requested(&mut self, psn: Psn) {
        (self.unrequested, self.requested) = (0, psn);
    }

    /// Whether an acknowledgement was requested that has not arrived: the oldest packet without one is
    /// `unacknowledged`.
    pub fn awaits_acknowledgement(&self, unacknowledged: Psn) -> bool {
        unacknowledged.is_before(self.requested)
    }

    /// Bytes that may be sent before an acknowledgement; `None` without a limit. `next` is the next packet.
    #[inline]
    pub fn left(&self, unacknowledged: Psn, next: Psn, mtu: usize) -> Option<usize> {
        let waiting = || next.distance(unacknowledged).max(0) as usize * mtu;
        (!self.near).then(|| WINDOW.saturating_sub(waiting()))
    }

    /// Judges whether the peer is near, after the packets before `next` were sent.
    #[inline]
    pub fn judge_distance(&mut self, unacknowledged: Psn, next: Psn) {
        if unacknowledged == next {
            self.near = true;
        } else if self.awaits_acknowledgement(unacknowledged) {
            self.near = false;
        }
    }
}
