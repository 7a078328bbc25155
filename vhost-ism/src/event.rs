//! Events for one guest: doorbells of DMBs that it holds, attachments, peers that left, messages.
//!
//! Doorbells coalesce per DMB while they wait for a buffer, attachments and detachments cancel out, and other events
//! wait in bounded queues. Events are delivered on the thread of the guest that causes them and never wait for the
//! receiver, so a guest that takes no events delays no other.

mod attachment_events;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use vhost_daemon::finding::Object;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use crate::abi::{
    AttachDetachEvent, CHUNK_SIZE, DoorbellsEvent, EV_ATTACH, EV_DETACH, EV_DOORBELLS, EV_PEER_GONE, EV_UPDATE,
    EVENT_QUEUE, Gid, MessageEvent, PeerGoneEvent, UpdateEvent,
};
use crate::door::{BellFate, EventKind};
use crate::ism_event::IsmEvent;
use crate::ism_finding::{Descriptor, Finding};
use crate::slab_view::SlabView;
use crate::stats::GuestStats;
use crate::tape::GuestTape;

use attachment_events::AttachmentEvents;

pub use attachment_events::AttachmentEvent;

/// Maximum number of messages of one sender that wait for buffers; SEND_MESSAGE is refused beyond it. As many wait of
/// all senders together that are gone.
pub const MAX_MESSAGES: usize = 64;
/// Maximum number of buffers too small for their event that are returned per kick. A driver could post them without
/// end, and a peer's thread would return them.
const MAX_SHORT: usize = 256;
/// The event queue, as the object of a finding.
const EVENTS: Object = Object::new("virtqueue", EVENT_QUEUE as u64);
/// Maximum number of departures that wait for buffers, and of peers whose departure will: beyond it, no memory is
/// shared with further peers.
pub const MAX_DEPARTURES: usize = 1024;

/// Fate of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// No buffer is posted.
    None,
    /// It is in a buffer.
    Filled,
    /// The buffer is too small, and was returned empty.
    Short(Descriptor),
}

/// The buffers that a driver posts for events.
pub trait EventRing: Send {
    /// Fills the next posted buffer with the bytes that `event` returns for its capacity; none, if that is too small.
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent;
    /// Notifies the driver of the filled buffers. Returns whether that took an interrupt.
    fn signal(&mut self) -> bool;
    /// Enables the kick for the next buffer. Returns whether one has been posted meanwhile.
    fn await_buffers(&mut self) -> bool;
}

/// The events of one session.
pub struct EventSink {
    pending: Mutex<Pending>,
    /// A leaf, taken under the fabric's lock, so that the order is that of the attachments.
    attachments: Mutex<AttachmentEvents>,
    /// Event types of the draft that the driver has subscribed to.
    subscribed: AtomicU64,
    /// Departures that wait, or are about to.
    departures: AtomicUsize,
    stats: Arc<GuestStats>,
}

#[derive(Default)]
struct Pending {
    ring: Option<Box<dyn EventRing>>,
    /// Doorbells by chunk, with the device that rang last.
    chunks: BTreeMap<u32, u64>,
    departed: VecDeque<Gid>,
    messages: VecDeque<MessageEvent>,
    /// Number of messages of each sender that is not gone.
    waiting: HashMap<Gid, usize>,
}

/// Serializes as the numbers of pending events.
impl Serialize for EventSink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pending = self.pending.lock();
        let Pending {
            chunks,
            departed,
            messages,
            ..
        } = &*pending;
        let counts = [
            ("attachments", self.attachments.lock().len()),
            ("doorbells", chunks.len()),
            ("departures", departed.len()),
            ("messages", messages.len()),
        ];
        serializer.collect_map(counts)
    }
}

/// Refusal of a message: [`MAX_MESSAGES`] of its sender wait already.
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
    /// Creates a sink without a ring: events wait.
    pub fn new(stats: Arc<GuestStats>) -> Self {
        Self {
            pending: Mutex::default(),
            attachments: Mutex::default(),
            subscribed: AtomicU64::new(0),
            departures: AtomicUsize::new(0),
            stats,
        }
    }

    /// Delivers pending events to the driver's event queue, and later ones as they come.
    pub fn open(&self, ring: Box<dyn EventRing>) {
        let mut pending = self.pending.lock();
        pending.ring = Some(ring);
        self.deliver(&mut pending);
    }

    /// Drops the ring of a device that is stopped; events wait.
    pub fn park(&self) {
        self.pending.lock().ring = None;
    }

    /// Drops the ring and the pending events of a session that ended.
    pub fn close(&self) {
        *self.pending.lock() = Pending::default();
        self.attachments.lock().clear();
    }

    /// Subscribes to event types of the draft, in place of an earlier subscription: [`EV_UPDATE`], which replaces
    /// DOORBELLS, and [`EV_ATTACH`] together with [`EV_DETACH`].
    pub fn subscribe(&self, events: u64) {
        let mut attachments = self.attachments.lock();
        self.subscribed.store(events, Ordering::Relaxed);
        if events & EV_ATTACH == 0 {
            attachments.clear();
        }
    }

    /// Notes the event of a DMB that this guest holds, if it has subscribed; [`EventSink::flush`] delivers it. Returns
    /// whether that is necessary.
    pub fn note(&self, event: AttachmentEvent) -> bool {
        let mut attachments = self.attachments.lock();
        let subscribed = self.subscribed.load(Ordering::Relaxed) & EV_ATTACH != 0;
        if subscribed {
            attachments.push(event);
        }
        subscribed
    }

    /// Drops the noted events of a DMB that this guest has detached.
    pub fn forget(&self, chunk: u32) {
        self.attachments.lock().forget(chunk);
    }

    /// Drops the ring of a DMB that the guest has detached: the chunk is the next DMB's.
    pub fn forget_ring(&self, chunk: u32) {
        self.pending.lock().chunks.remove(&chunk);
    }

    /// Delivers pending events into newly posted buffers.
    pub fn flush(&self) {
        self.deliver(&mut self.pending.lock());
    }

    /// Delivers the doorbells of DMBs that a device rang, each named by its first chunk in the window of this guest,
    /// which holds them.
    pub fn ring(self: &Arc<Self>, chunks: &[u32], devid: u64) {
        if self.stats.door().is_none() {
            return self.ring_past_door(chunks, devid);
        }
        let passes = |chunk| self.passes_bell(chunk, move |sink| sink.ring_past_door(&[chunk], devid));
        let now: Vec<u32> = chunks.iter().copied().filter(|&chunk| passes(chunk)).collect();
        self.ring_past_door(&now, devid);
    }

    /// Notifies the owner of a DMB of a device's move: by its bell, and if it does not poll that, by an event.
    /// `slab_chunk` is the first chunk of the DMB in its slab, `chunk` in the window of this guest.
    pub fn signal(self: &Arc<Self>, view: &Arc<SlabView>, slab_chunk: u32, chunk: u32, devid: u64) {
        let later = view.clone();
        if self.passes_bell(chunk, move |sink| {
            sink.signal_past_door(&later, slab_chunk, chunk, devid);
        }) {
            self.signal_past_door(view, slab_chunk, chunk, devid);
        }
    }

    fn signal_past_door(&self, view: &SlabView, slab_chunk: u32, chunk: u32, devid: u64) {
        let asleep = view.ring(slab_chunk);
        let asleep = match self.stats.tape() {
            None => asleep,
            Some(GuestTape { tape, guest }) => tape.bell(*guest, slab_chunk, asleep),
        };
        if asleep {
            self.ring_past_door(&[chunk], devid);
        }
    }

    /// Lets the bell of a DMB pass the door. Returns whether it is delivered now; `late` delivers it when it is late,
    /// or comes again.
    fn passes_bell(self: &Arc<Self>, chunk: u32, late: impl FnOnce(&Self) + Send + 'static) -> bool {
        let Some(door) = self.stats.door() else { return true };
        let fate = door.bell(chunk);
        if let BellFate::Late(delay) | BellFate::Repeated(delay) = fate {
            let sink = Arc::downgrade(self);
            let deliver = move || {
                if let Some(sink) = sink.upgrade() {
                    late(&sink);
                }
            };
            door.later(delay, Box::new(deliver));
        }
        matches!(fate, BellFate::Delivered | BellFate::Repeated(_))
    }

    fn ring_past_door(&self, chunks: &[u32], devid: u64) {
        self.stats.counters.rings.add(chunks.len() as u64);
        let mut pending = self.pending.lock();
        pending.chunks.extend(chunks.iter().map(|chunk| (*chunk, devid)));
        self.deliver(&mut pending);
    }

    /// Number of departures that wait, or are about to.
    pub fn departures(&self) -> usize {
        self.departures.load(Ordering::Relaxed)
    }

    /// Takes a place for a departure, before [`EventSink::peer_gone`].
    pub fn expect_departure(&self) {
        self.departures.fetch_add(1, Ordering::Relaxed);
    }

    fn free_departure(&self) {
        self.departures.fetch_sub(1, Ordering::Relaxed);
    }

    /// Delivers the departure of a peer, which has a place.
    pub fn peer_gone(&self, gid: Gid) {
        if !self.passes(EventKind::PeerGone) {
            self.free_departure();
            return self.flush();
        }
        let mut pending = self.pending.lock();
        pending.departed.push_back(gid);
        self.deliver(&mut pending);
    }

    /// Handles the end of a sender of messages: those that wait do not count against another one.
    pub fn sender_gone(&self, gid: Gid) {
        self.pending.lock().sender_gone(gid);
    }

    /// Reports that a peer cannot share memory with this guest, as it does not take its events.
    pub fn report_overflow(&self, peer: Gid) {
        self.stats.report(Finding::EventOverflow, EVENTS, &peer.0);
    }

    /// Delivers a peer's message.
    pub fn message(&self, message: MessageEvent) -> Result<(), Full> {
        if !self.passes(EventKind::Message) {
            return Ok(());
        }
        let mut pending = self.pending.lock();
        self.deliver(&mut pending);
        let waiting = pending.waiting.entry(message.gid).or_default();
        if *waiting >= MAX_MESSAGES {
            return Err(Full);
        }
        *waiting += 1;
        pending.messages.push_back(message);
        self.deliver(&mut pending);
        Ok(())
    }

    fn passes(&self, kind: EventKind) -> bool {
        self.stats.door().is_none_or(|door| door.event(kind))
    }

    fn deliver(&self, pending: &mut Pending) {
        let Some(mut ring) = pending.ring.take() else { return };
        let (mut sent, mut short) = (0, 0);
        while self.is_pending(pending) && short < MAX_SHORT {
            let departures = pending.departed.len();
            let fate = ring.send(&mut |capacity| self.next_event(pending, capacity));
            if fate == Sent::None {
                if ring.await_buffers() { continue } else { break }
            }
            if pending.departed.len() < departures {
                self.free_departure();
            }
            if let Sent::Short(descriptor) = fate {
                self.stats.report(Finding::ShortEventBuffer, EVENTS, &descriptor);
                short += 1;
            }
            sent += 1;
        }
        if sent > 0 {
            self.stats.counters.events.add(sent);
            let interrupt = ring.signal();
            self.stats.counters.interrupts.add(interrupt.into());
            let arguments = || [sent as u32, interrupt.into(), 0, 0];
            self.stats.tracer.record(IsmEvent::Deliver, 0, arguments);
        }
        pending.ring = Some(ring);
    }

    fn is_pending(&self, pending: &Pending) -> bool {
        let Pending {
            chunks,
            departed,
            messages,
            ..
        } = pending;
        !(chunks.is_empty() && departed.is_empty() && messages.is_empty() && self.attachments.lock().len() == 0)
    }

    /// Takes the next event, in at most `capacity` bytes. Returns no bytes, and loses nothing, if it does not fit.
    fn next_event(&self, pending: &mut Pending, capacity: usize) -> Vec<u8> {
        // Departures first: they end connections that doorbells would only wake.
        if let Some(&gid) = pending.departed.front() {
            let event = PeerGoneEvent {
                ev_type: EV_PEER_GONE.into(),
                gid,
            };
            return take(&event, capacity, || {
                pending.departed.pop_front();
            });
        }
        let mut attachments = self.attachments.lock();
        if let Some(&next) = attachments.front() {
            let event = AttachDetachEvent {
                ev_type: if next.attached { EV_ATTACH } else { EV_DETACH }.into(),
                offset: (u64::from(next.chunk) * CHUNK_SIZE).into(),
                devid: next.devid.into(),
                peers: next.peers.into(),
            };
            return take(&event, capacity, || attachments.pop_front());
        }
        drop(attachments);
        if let Some(&event) = pending.messages.front() {
            return take(&event, capacity, || pending.pop_message());
        }
        match self.subscribed.load(Ordering::Relaxed) & EV_UPDATE {
            0 => pending.next_doorbells(capacity),
            _ => pending.next_update(capacity),
        }
    }
}

/// Returns an event, which is then removed from those that wait, or no bytes if it does not fit.
fn take(event: &(impl IntoBytes + Immutable), capacity: usize, remove: impl FnOnce()) -> Vec<u8> {
    if size_of_val(event) > capacity {
        return Vec::new();
    }
    remove();
    event.as_bytes().to_vec()
}

impl Pending {
    fn sender_gone(&mut self, gid: Gid) {
        if self.waiting.remove(&gid).is_none() {
            return;
        }
        let is_orphan = |message: &MessageEvent| !self.waiting.contains_key(&message.gid);
        let orphans = self.messages.iter().filter(|message| is_orphan(message)).count();
        let mut excess = orphans.saturating_sub(MAX_MESSAGES);
        let waiting = &self.waiting;
        self.messages.retain(|message| {
            let drops = excess > 0 && !waiting.contains_key(&message.gid);
            excess -= usize::from(drops);
            !drops
        });
    }

    fn pop_message(&mut self) {
        let Some(message) = self.messages.pop_front() else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&message.gid) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&message.gid);
            }
        }
    }

    fn next_update(&mut self, capacity: usize) -> Vec<u8> {
        let Some((&chunk, &devid)) = self.chunks.first_key_value() else {
            return Vec::new();
        };
        let event = UpdateEvent {
            ev_type: EV_UPDATE.into(),
            offset: (u64::from(chunk) * CHUNK_SIZE).into(),
            devid: devid.into(),
        };
        take(&event, capacity, || {
            self.chunks.pop_first();
        })
    }

    fn next_doorbells(&mut self, capacity: usize) -> Vec<u8> {
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
            if let Some((chunk, _)) = self.chunks.pop_first() {
                event.extend_from_slice(&chunk.to_le_bytes());
            }
        }
        event
    }
}

#[cfg(test)]
mod tests;
