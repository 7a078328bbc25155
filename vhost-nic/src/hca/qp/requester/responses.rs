//! Responses to a requester: what they acknowledge, and where it goes back to when one is missing.

use std::time::Instant;

use super::Requester;
use crate::hca::qp::message::Message;
use crate::net::FrameNumber;
use crate::roce::psn::Psn;

/// `rnr_retry` value 7: retry indefinitely.
const RNR_RETRY_INFINITE: u8 = 7;

impl Requester {
    /// Sets the number of the response that is being received: of its first packet, or none if there is no response.
    pub fn set_response(&mut self, number: FrameNumber) {
        self.response = number;
    }

    /// Whether the packet with this PSN is acknowledged.
    pub fn is_acknowledged(&self, psn: Psn) -> bool {
        psn.is_before(self.unacknowledged)
    }

    /// Whether a response is a ghost: to a packet that was not sent, or is acknowledged already.
    pub fn is_stale(&self, psn: Psn) -> bool {
        !psn.is_before(self.next_psn) || self.is_acknowledged(psn)
    }

    /// Acknowledges all packets before `psn`. Fails if the response to a read or an atomic among them was lost, with
    /// the first PSN to be retransmitted; then only packets before that PSN are acknowledged.
    pub fn acknowledge_up_to(&mut self, psn: Psn) -> Result<(), Psn> {
        let mut lost = None;
        // Messages in retransmission are no exception: a late acknowledgement is one.
        for message in self.messages.iter_mut() {
            if message.packets == 0 || message.done {
                continue;
            }
            if !message.last().is_before(psn) {
                break;
            }
            if message.work.is_request() {
                lost = Some(message.next_response());
                break;
            }
            message.done = true;
            message.ended_by = self.response;
        }
        let reached = lost.unwrap_or(psn);
        if reached.is_after(self.unacknowledged) {
            self.progress_to(reached);
        }
        lost.map_or(Ok(()), Err)
    }

    /// The read or atomic that a response with this PSN belongs to.
    pub fn request_at(&self, psn: Psn) -> Option<usize> {
        self.messages.iter().take(self.current + 1).position(|message| {
            message.work.is_request() && !message.done && psn.is_within(message.first, message.last())
        })
    }

    /// A message by its position.
    pub fn message(&self, at: usize) -> &Message {
        &self.messages[at]
    }

    /// Whether this PSN is the oldest message's, or behind it.
    pub fn reaches_oldest(&self, psn: Psn) -> bool {
        let oldest = self.messages.first();
        oldest.is_some_and(|oldest| oldest.packets > 0 && !psn.is_before(oldest.first))
    }

    /// Accepts the next response packets of a read or an atomic, from `psn` on, with the data that goes into the
    /// completion.
    pub fn accept_response(&mut self, at: usize, psn: Psn, packets: u32, inline: Option<Vec<u8>>) {
        let message = &mut self.messages[at];
        if inline.is_some() {
            message.inline_response = inline;
        }
        message.responses += packets;
        message.done = psn + (packets - 1) == message.last();
        message.ended_by = self.response.plus(packets - 1);
        self.progress_to(psn + packets);
    }

    fn progress_to(&mut self, psn: Psn) {
        self.unacknowledged = psn;
        self.retries = 0;
        self.rnr_retries = 0;
        self.gap = None;
        self.deadline = None;
    }

    /// Goes back to `psn`, to retransmit from there. Of a read, only the part without a response is requested again.
    pub fn go_back(&mut self, psn: Psn) {
        let at = self
            .messages
            .iter()
            .position(|message| message.packets > 0 && !message.done && psn.is_within(message.first, message.last()));
        // Retransmission that starts earlier goes on: this would be forward.
        if let Some(at) = at.filter(|at| *at <= self.current && psn.is_before(self.send_psn)) {
            let message = &self.messages[at];
            self.current = at;
            self.send_psn = psn;
            if message.work.is_request() {
                self.send_psn = message.next_response();
            }
        }
    }

    /// Notes that the response with this PSN is missing. Returns false if that is known: responses that were on their
    /// way already say so again, and must not use up the retries.
    pub fn note_gap(&mut self, psn: Psn) -> bool {
        self.gap.replace(psn) != Some(psn)
    }

    /// Goes back to the oldest PSN that is not acknowledged.
    pub fn go_back_to_unacknowledged(&mut self) {
        self.gap = None;
        self.go_back(self.unacknowledged);
    }

    /// Goes back to `psn` and delays its retransmission.
    pub fn delay(&mut self, psn: Psn, until: Instant) {
        self.go_back(psn);
        self.not_before = Some(until);
    }

    /// Counts a retry, unless `limit` is reached (IBTA 9.9.2.1.1). Every acknowledgement restarts the count.
    pub fn retry(&mut self, limit: u8) -> bool {
        let allowed = self.retries < limit;
        self.retries += u8::from(allowed);
        allowed
    }

    /// Counts a retry after an RNR NAK, unless `limit` is reached.
    pub fn retry_rnr(&mut self, limit: u8) -> bool {
        if limit != RNR_RETRY_INFINITE {
            if self.rnr_retries >= limit {
                return false;
            }
            self.rnr_retries += 1;
        }
        true
    }
}
