//! Events on their way to one guest: rings of its doorbells, peers that left, messages.
//!
//! Rings coalesce per DMB while they wait for a buffer; the others wait in bounded queues. Whoever has something for a
//! guest calls in from its own thread, so a guest that takes no events delays nobody.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::abi::{DoorbellsEvent, EV_DOORBELLS, EV_PEER_GONE, Gid, MessageEvent, PeerGoneEvent};
use crate::stats::{Finding, GuestStats};

/// Messages that wait for buffers before SEND_MESSAGE is refused.
pub const MAX_MESSAGES: usize = 64;
/// Buffers too small for their event that are returned before the next kick. A driver could post them for ever, and it is a
/// peer's thread that would return them.
const MAX_SHORT: usize = 256;
/// Departures that wait for buffers before they are dropped.
pub const MAX_DEPARTURES: usize = 1024;

/// The buffers a driver posts for events.
pub trait EventRing: Send {
    /// Returns the next posted buffer with what `event` makes of its capacity, if one is posted.
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> bool;
    /// Tells the driver about what was sent. Returns whether that took an interrupt.
    fn signal(&mut self) -> bool;
    /// Asks to be kicked for the next buffer. Returns true when one has come meanwhile.
    fn await_buffers(&mut self) -> bool;
}

/// Where events for one session go.
pub struct EventSink {
    pending: Mutex<Pending>,
    stats: Arc<GuestStats>,
}

#[derive(Default)]
struct Pending {
    ring: Option<Box<dyn EventRing>>,
    chunks: BTreeSet<u32>,
    departed: VecDeque<Gid>,
    messages: VecDeque<MessageEvent>,
}

/// The receiver has too many messages waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSink")
            .field("guest", &self.stats.guest())
            .finish_non_exhaustive()
    }
}

impl EventSink {
    /// A sink without a ring: what comes waits.
    pub fn new(stats: Arc<GuestStats>) -> Self {
        Self {
            pending: Mutex::default(),
            stats,
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver's event queue runs.
    pub fn open(&self, ring: Box<dyn EventRing>) {
        let mut pending = self.pending();
        pending.ring = Some(ring);
        self.deliver(&mut pending);
    }

    /// The device is stopped: the ring is let go of, and what comes waits.
    pub fn park(&self) {
        self.pending().ring = None;
    }

    /// The session is over: the ring is let go of, and what waits is dropped.
    pub fn close(&self) {
        *self.pending() = Pending::default();
    }

    /// New buffers may have been posted.
    pub fn flush(&self) {
        self.deliver(&mut self.pending());
    }

    /// DMBs of this guest, named by their first chunk in its window, were rung.
    pub fn ring(&self, chunks: &[u32]) {
        self.stats.rings.add(chunks.len() as u64);
        let mut pending = self.pending();
        pending.chunks.extend(chunks);
        self.deliver(&mut pending);
    }

    /// A peer's session ended.
    pub fn peer_gone(&self, gid: Gid) {
        let mut pending = self.pending();
        if pending.departed.len() < MAX_DEPARTURES {
            pending.departed.push_back(gid);
        } else {
            self.stats.find(Finding::EventOverflow);
        }
        self.deliver(&mut pending);
    }

    /// A peer sent a message.
    pub fn message(&self, message: MessageEvent) -> Result<(), Full> {
        let mut pending = self.pending();
        self.deliver(&mut pending);
        if pending.messages.len() >= MAX_MESSAGES {
            return Err(Full);
        }
        pending.messages.push_back(message);
        self.deliver(&mut pending);
        Ok(())
    }

    fn deliver(&self, pending: &mut Pending) {
        let Some(mut ring) = pending.ring.take() else { return };
        let (mut sent, mut short) = (0, 0);
        while pending.waits() && short < MAX_SHORT {
            let mut fits = true;
            let taken = ring.send(&mut |capacity| {
                let event = pending.next_event(capacity);
                fits = !event.is_empty();
                event
            });
            if !taken {
                if ring.await_buffers() { continue } else { break }
            }
            if !fits {
                self.stats.find(Finding::ShortEventBuffer);
                short += 1;
            }
            sent += 1;
        }
        if sent > 0 {
            self.stats.events.add(sent);
            if ring.signal() {
                self.stats.interrupts.add(1);
            }
        }
        pending.ring = Some(ring);
    }
}

impl Pending {
    fn waits(&self) -> bool {
        !self.chunks.is_empty() || !self.departed.is_empty() || !self.messages.is_empty()
    }

    /// The next event in at most `capacity` bytes; nothing is lost when it does not fit, and the event is empty.
    fn next_event(&mut self, capacity: usize) -> Vec<u8> {
        // Departures first: they end connections that rings would only wake.
        if let Some(&gid) = self.departed.front() {
            let event = PeerGoneEvent {
                ev_type: EV_PEER_GONE.into(),
                gid,
            };
            if size_of_val(&event) > capacity {
                return Vec::new();
            }
            self.departed.pop_front();
            return event.as_bytes().to_vec();
        }
        if let Some(&event) = self.messages.front() {
            if size_of_val(&event) > capacity {
                return Vec::new();
            }
            self.messages.pop_front();
            return event.as_bytes().to_vec();
        }
        let room = capacity.saturating_sub(size_of::<DoorbellsEvent>()) / size_of::<U32>();
        let count = room.min(self.chunks.len());
        if count == 0 {
            return Vec::new();
        }
        let head = DoorbellsEvent {
            ev_type: EV_DOORBELLS.into(),
            count: (count as u32).into(),
            reserved: U32::ZERO,
        };
        let mut event = head.as_bytes().to_vec();
        for _ in 0..count {
            if let Some(chunk) = self.chunks.pop_first() {
                event.extend_from_slice(&chunk.to_le_bytes());
            }
        }
        event
    }
}

#[cfg(test)]
mod tests;
