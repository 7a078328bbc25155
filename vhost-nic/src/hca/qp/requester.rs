//! Requester state: sequence numbers, outstanding messages and timers of a send queue.

mod responses;

use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::message::{Data, Message};
use super::message_ring::Messages;
use super::send_window::SendWindow;
use crate::hca::pcie_account::PayloadAccount;
use crate::net::FrameNumber;
use crate::roce::psn::Psn;

/// Limit on outstanding messages.
pub(super) const MAX_MESSAGES: usize = 256;
/// Limit on the packets of a message, and on outstanding packets before it: PSN comparison is unambiguous only within
/// half the sequence space.
pub const MAX_PACKETS: u32 = 1 << 22;

/// Verdict of a requester's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timers {
    /// Packets may be sent.
    Send,
    /// No packet may be sent before the end of this RNR delay.
    RnrDelay(Instant),
    /// The acknowledgement timeout has expired: retransmit.
    AckTimeout,
}

/// Requester state of a queue pair.
#[derive(Debug, Serialize)]
pub struct Requester {
    fetched: u16,
    /// Whether the WQE at `fetched` could not be read and has its message already: its length is not known.
    unread: bool,
    #[serde(serialize_with = "Messages::serialize_length")]
    messages: Messages,
    /// Index of the message that is being sent; the number of messages if all are sent.
    current: usize,
    send_psn: Psn,
    next_psn: Psn,
    /// The oldest PSN that is not acknowledged.
    unacknowledged: Psn,
    retries: u8,
    rnr_retries: u8,
    /// First missing response that was requested again, until there is progress or the timeout expires.
    gap: Option<Psn>,
    /// End of the acknowledgement timeout.
    #[serde(skip)]
    deadline: Option<Instant>,
    /// The earliest time at which the NIC's thread is scheduled for this queue pair.
    #[serde(skip)]
    alarm: Option<Instant>,
    /// End of an RNR delay.
    #[serde(skip)]
    not_before: Option<Instant>,
    /// The NIC's thread is sending and will check again before it leaves.
    in_service: bool,
    #[serde(flatten)]
    send_window: SendWindow,
    payload: PayloadAccount,
    /// Number of the response that is being received.
    #[serde(skip)]
    response: FrameNumber,
}

impl Requester {
    pub(super) fn new() -> Self {
        Self {
            fetched: 0,
            unread: false,
            messages: Messages::default(),
            current: 0,
            send_psn: Psn::default(),
            next_psn: Psn::default(),
            unacknowledged: Psn::default(),
            retries: 0,
            rnr_retries: 0,
            gap: None,
            deadline: None,
            alarm: None,
            not_before: None,
            in_service: false,
            send_window: SendWindow::default(),
            payload: PayloadAccount::default(),
            response: FrameNumber::default(),
        }
    }

    /// Resets everything but the account.
    pub(super) fn reset(&mut self) {
        *self = Self {
            payload: self.payload,
            ..Self::new()
        };
    }

    /// Sets the PSN of the first message.
    pub(super) fn start_at(&mut self, psn: Psn) {
        self.next_psn = psn;
        self.send_psn = psn;
        self.unacknowledged = psn;
        self.send_window.start_at(psn);
    }

    /// Index of the next WQE to be read, in basic blocks.
    pub fn fetched(&self) -> u16 {
        self.fetched
    }

    /// Index of the oldest WQE that is not completed, in basic blocks.
    #[inline]
    pub fn consumer(&self) -> u16 {
        self.messages.first().map_or(self.fetched, Message::index)
    }

    /// The oldest message that is not completed.
    pub fn oldest(&self) -> Option<&Message> {
        self.messages.first()
    }

    /// PSN of the next message to be read.
    pub fn next_psn(&self) -> Psn {
        self.next_psn
    }

    /// PSN of the next packet to be sent.
    pub fn send_psn(&self) -> Psn {
        self.send_psn
    }

    /// Whether all messages that have been read are sent.
    pub fn is_caught_up(&self) -> bool {
        self.current == self.messages.len()
    }

    /// Whether sending waits for a timer or a response, or has messages left: reading more would not help.
    pub fn is_blocked(&self) -> bool {
        self.not_before.is_some() || !self.is_caught_up()
    }

    /// Sets whether the NIC's thread is in service for this queue pair; if so, responses need not schedule it.
    pub fn set_in_service(&mut self, in_service: bool) {
        self.in_service = in_service;
    }

    /// Whether the NIC's thread is sending and will check again before it leaves.
    pub fn is_in_service(&self) -> bool {
        self.in_service
    }
}

/// Reading and sending messages.
impl Requester {
    /// Whether no message can be read until others are completed.
    pub fn is_full(&self, reliable: bool) -> bool {
        let waiting = self.next_psn.distance(self.unacknowledged).unsigned_abs();
        self.messages.len() >= MAX_MESSAGES || reliable && waiting >= MAX_PACKETS
    }

    /// Bytes that may be sent before an acknowledgement; `None` without a limit.
    #[inline]
    pub fn window(&self, mtu: usize) -> Option<usize> {
        self.send_window.left(self.unacknowledged, self.send_psn, mtu)
    }

    /// Whether an acknowledgement was requested that has not arrived.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.send_window.awaits_acknowledgement(self.unacknowledged)
    }

    /// Judges by what is acknowledged after packets were sent whether the peer is near.
    #[inline]
    pub fn judge_distance(&mut self) {
        self.send_window.judge_distance(self.unacknowledged, self.send_psn);
    }

    /// Appends a blank message for the next WQE.
    #[inline]
    pub fn append(&mut self) -> &mut Message {
        self.messages.add(self.fetched)
    }

    /// The message appended last.
    pub fn newest(&self) -> Option<&Message> {
        self.messages.last()
    }

    /// Posts the appended message, which takes `blocks` basic blocks of the queue and `packets` PSNs.
    pub fn post(&mut self, blocks: u16, packets: u32) -> Psn {
        let first = self.next_psn;
        if let Some(message) = self.messages.last_mut() {
            (message.first, message.packets) = (first, packets);
        }
        self.next_psn += packets;
        self.fetched = self.fetched.wrapping_add(blocks);
        first
    }

    /// Posts the appended message for a WQE that cannot be read. The next WQE is not known before this one is.
    pub fn post_unread(&mut self) -> Psn {
        self.unread = true;
        self.post(0, 0)
    }

    /// Removes the appended message again.
    pub fn withdraw(&mut self) {
        self.messages.remove_last();
    }

    /// Whether the next WQE to be read has its message already; it is taken for read then.
    pub fn take_unread(&mut self) -> bool {
        std::mem::take(&mut self.unread)
    }

    /// Number of reads and atomics that are sent and not answered.
    pub fn open_requests(&self) -> usize {
        self.messages
            .iter()
            .take(self.current)
            .filter(|message| message.work.is_request() && !message.done)
            .count()
    }

    /// Moves the PSN to the first one of the current message that has no response, if it is before. Skips the message,
    /// and returns false, if it was acknowledged while it waited for retransmission.
    pub fn begin_message(&mut self) -> bool {
        let message = &self.messages[self.current];
        let has_packets = message.packets > 0;
        if message.done {
            if has_packets {
                self.send_psn = message.first + message.packets;
            }
            self.current += 1;
            return false;
        }
        // Responses that were on their way when the queue pair went back count as well.
        if has_packets && self.send_psn.is_before(message.next_response()) {
            self.send_psn = message.next_response();
        }
        true
    }

    /// The message that is being sent.
    pub fn current(&self) -> Option<&Message> {
        (!self.is_caught_up()).then(|| &self.messages[self.current])
    }

    /// Whether every message before the current one is done.
    pub fn is_oldest(&self) -> bool {
        self.messages.iter().take(self.current).all(|message| message.done)
    }

    /// Finishes the current message without a packet.
    pub fn finish_local(&mut self) {
        self.messages[self.current].done = true;
        self.current += 1;
    }

    /// Advances by packets of the current message, and to the next message behind its last packet. An unreliable
    /// message is done then: it gets no acknowledgement.
    pub fn advance(&mut self, packets: u32, reliable: bool) {
        let message = &mut self.messages[self.current];
        self.send_psn += packets;
        if message.last().is_before(self.send_psn) {
            message.done |= !reliable;
            self.current += 1;
        }
    }

    /// Counts packets that are about to be sent. Returns whether `every` packets have been sent without an
    /// acknowledgement request.
    pub fn count_packets(&mut self, packets: u32, every: u32) -> bool {
        self.send_window.count(packets) >= every
    }

    /// Notes that an acknowledgement of all packets before `psn` was requested, and restarts the count of packets
    /// without such a request.
    pub fn acknowledgement_requested(&mut self, psn: Psn) {
        self.send_window.acknowledgement_requested(psn);
    }

    /// Whether a signaled message is among those at the front that are done.
    pub fn completes_signaled(&self) -> bool {
        let mut done = self.messages.iter().take_while(|message| message.done);
        done.any(Message::is_signaled)
    }

    /// Sets which packet ended the messages that got no response.
    pub fn set_last_packets(&mut self, last_packet_of: impl Fn(u16) -> FrameNumber) {
        for message in self.messages.iter_mut().take_while(|message| message.done) {
            message.ended_by = last_packet_of(message.index);
        }
    }

    /// Completes the messages at the front that are done; `act` is called with each.
    pub fn complete(&mut self, mut act: impl FnMut(&Message)) {
        let mut done = 0;
        for message in self.messages.iter().take_while(|message| message.done) {
            act(message);
            done += 1;
        }
        self.remove(done);
    }

    /// Removes the oldest message, which failed; `act` is called with it.
    pub fn fail_oldest(&mut self, act: impl FnOnce(&Message)) {
        let response = self.response;
        if let Some(message) = self.messages.first_mut() {
            message.ended_by = response;
            act(message);
            self.remove(1);
        }
        self.deadline = None;
    }

    /// Removes all messages; `act` is called with each.
    pub fn flush(&mut self, act: impl FnMut(&Message)) {
        self.messages.iter().for_each(act);
        self.messages.remove(self.messages.len());
        self.current = 0;
    }

    fn remove(&mut self, count: usize) {
        self.messages.remove(count);
        self.current = self.current.saturating_sub(count);
    }
}

/// The PCIe account.
impl Requester {
    /// The transactions of data so far.
    pub fn payload(&self) -> PayloadAccount {
        self.payload
    }

    /// Accounts for the data of the next `packets` of the current message.
    #[inline]
    pub fn account_sent(&mut self, packets: u32, mtu: usize) {
        let message = &self.messages[self.current];
        let reads = message.data.reads();
        if reads.count == 0 || message.work.is_request() {
            return;
        }
        if packets == message.packets && packets == 1 {
            self.payload.reads += reads;
        } else {
            self.account_packets(packets, mtu);
        }
    }

    fn account_packets(&mut self, packets: u32, mtu: usize) {
        let message = &self.messages[self.current];
        let from = self.send_psn.distance(message.first).max(0) as usize * mtu;
        let until = from.saturating_add(packets as usize * mtu).min(message.length as usize);
        let segments = message.data.parts();
        let segments = segments.map(|data| (data.length(), matches!(data, Data::Memory(_))));
        self.payload.reads.add_packets(segments, from..until, mtu);
    }

    /// Accounts for the list of a UMR WQE, of which `bytes` were read from memory.
    pub fn account_list(&mut self, bytes: usize) {
        if bytes > 0 {
            self.payload.reads.add(1, bytes as u64);
        }
    }

    /// Accounts for response data that were written to a range of a message's memory.
    pub fn account_response(&mut self, at: usize, range: Range<usize>, mtu: usize) {
        let segments = self.messages[at].data.memory();
        let segments = segments.map(|segment| (segment.byte_count.get() as usize, true));
        self.payload.writes.add_packets(segments, range, mtu);
    }
}

/// Timers.
impl Requester {
    /// Checks all timers against `now`, and stops those that have expired.
    pub fn poll_timers(&mut self, now: Instant) -> Timers {
        self.alarm = self.alarm.filter(|alarm| *alarm > now);
        if let Some(time) = self.not_before {
            if time > now {
                return Timers::RnrDelay(time);
            }
            self.not_before = None;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            return Timers::AckTimeout;
        }
        Timers::Send
    }

    /// Starts the acknowledgement timer unless it runs, and returns its deadline; stops it if nothing is outstanding or
    /// there is no timeout.
    pub fn arm_timer(&mut self, timeout: Option<Duration>, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let Some(timeout) = timeout.filter(|_| self.awaits_response()) else {
            self.deadline = None;
            return None;
        };
        Some(*self.deadline.get_or_insert_with(|| now() + timeout))
    }

    /// Whether packets have been sent that have no response, be it the first ones of a message that is still being
    /// sent.
    fn awaits_response(&self) -> bool {
        let begun = |message: &Message| message.first.is_before(self.send_psn);
        let waits = |message: &Message| !message.done && message.packets > 0;
        self.messages.iter().take(self.current).any(waits)
            || self.unacknowledged.is_before(self.send_psn) && self.current().is_some_and(begun)
    }

    /// Sets an alarm, and returns whether the NIC's thread must be scheduled for it: no earlier alarm is set.
    pub fn set_alarm(&mut self, time: Instant) -> bool {
        let earlier = self.alarm.is_none_or(|alarm| alarm > time);
        if earlier {
            self.alarm = Some(time);
        }
        earlier
    }
}
