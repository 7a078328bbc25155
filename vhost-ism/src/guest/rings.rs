//! Rings of a session: from the doorbell bytes of its guest to those that hold the DMBs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use vhost_daemon::finding::Object;
use vhost_daemon::heartbeat;

use super::Session;
use crate::abi::{CHUNK_SIZE, Token};
use crate::event::EventSink;
use crate::fabric::{Attachment, Detached, Mode, Placement, SharedBy};
use crate::ism_event::IsmEvent;
use crate::ism_finding::Finding;

/// The targets of the doorbell bytes.
#[derive(Debug, Default)]
pub struct Doorbells {
    /// By chunk of this guest's window.
    connected: Vec<Option<Doorbell>>,
    /// Chunks found in one pass over the area; kept to reuse the allocation.
    rung: Vec<u32>,
}

pub fn connected<S: Serializer>(doorbells: &Mutex<Doorbells>, serializer: S) -> Result<S::Ok, S::Error> {
    doorbells
        .lock()
        .connected
        .iter()
        .flatten()
        .count()
        .serialize(serializer)
}

/// The DMB that a doorbell byte belongs to.
#[derive(Debug, Clone)]
pub enum Doorbell {
    /// DMB for one peer (ALLOC_FOR_PEER), rung by the peer: the owner's sink, and the chunk in its window.
    Owner(Arc<EventSink>, u32),
    /// DMB from ALLOC: a ring notifies all other holders.
    Holders(Token),
}

impl Session {
    /// Connects the doorbell byte of an attached DMB.
    pub fn connect_doorbell(&self, attachment: &Attachment) {
        let placement = &attachment.placement;
        let doorbell = match attachment.shared_by {
            SharedBy::Pair => Doorbell::Owner(attachment.owner.clone(), attachment.owner_chunk),
            SharedBy::Granted => Doorbell::Holders(placement.token),
        };
        self.connect(placement.offset, doorbell);
    }

    /// Connects the doorbell byte of a DMB of this guest that any number of others can attach.
    pub fn connect_own_doorbell(&self, placement: &Placement) {
        if self.fabric.limits().mode == Mode::Mapped {
            self.connect(placement.offset, Doorbell::Holders(placement.token));
        }
    }

    fn connect(&self, offset: u64, doorbell: Doorbell) {
        let chunk = (offset / CHUNK_SIZE) as usize;
        let mut doorbells = self.doorbells.lock();
        if doorbells.connected.len() <= chunk {
            doorbells.connected.resize(chunk + 1, None);
        }
        doorbells.connected[chunk] = Some(doorbell);
    }

    /// Disconnects the doorbell of a detached DMB. An earlier ring is still delivered: SMC rings and then detaches at
    /// once when it aborts a connection, and the owner must be notified.
    pub fn disconnect_doorbell(&self, detached: Detached) {
        let (Detached::Owned { chunk, .. } | Detached::Attached { chunk }) = detached;
        self.sink.forget_ring(chunk);
        let last_ring = {
            let mut doorbells = self.doorbells.lock();
            let doorbell = doorbells.connected.get_mut(chunk as usize).and_then(Option::take);
            doorbell.filter(|_| self.area.take(chunk))
        };
        if let Some(doorbell) = last_ring {
            self.stats.counters.doorbells.increment();
            for (holder, chunk) in self.rung_for(&doorbell) {
                holder.ring(&[chunk], self.devid);
            }
        }
    }

    /// Returns the sinks to notify of a ring, and the chunk of the DMB in the window of each.
    fn rung_for(&self, doorbell: &Doorbell) -> Vec<(Arc<EventSink>, u32)> {
        match doorbell {
            Doorbell::Owner(owner, chunk) => vec![(owner.clone(), *chunk)],
            Doorbell::Holders(token) => self.fabric.other_holders(self.gid, *token),
        }
    }

    /// Handles a kick: delivers the guest's doorbells until none is left.
    pub fn serve_doorbells(&self) {
        self.stats.counters.kicks.increment();
        self.stats.tracer.record(IsmEvent::Kick, 0, Default::default);
        self.deliver_doorbells();
        self.stats.tracer.record(IsmEvent::KickServed, 0, Default::default);
    }

    fn deliver_doorbells(&self) {
        self.area.set_awake(true);
        // Doorbells are only connected in the part of the window that is in use. A ring elsewhere is a guest error,
        // searched for only when no other doorbell rang.
        let mut rung = self.collect(None);
        if rung.is_empty() {
            rung = self.collect(Some(u32::MAX));
        }
        loop {
            while !rung.is_empty() && self.alive.load(Ordering::Relaxed) {
                heartbeat::progress();
                for (holder, chunks) in rung {
                    holder.ring(&chunks, self.devid);
                }
                rung = self.collect(None);
            }
            heartbeat::progress();
            self.area.set_awake(false);
            rung = self.collect(None);
            if rung.is_empty() || !self.alive.load(Ordering::Relaxed) {
                return;
            }
            self.area.set_awake(true);
        }
    }

    /// Collects the doorbells that rang, by receiver; nearly always one with one doorbell. Collection and look-up share
    /// one lock, so that a ring cannot be lost to a concurrent disconnection.
    fn collect(&self, limit: Option<u32>) -> Vec<(Arc<EventSink>, Vec<u32>)> {
        let mut receivers: Vec<(Arc<EventSink>, Vec<u32>)> = Vec::new();
        let Doorbells { connected, rung } = &mut *self.doorbells.lock();
        self.area.collect(limit.unwrap_or(connected.len() as u32), rung);
        for &chunk in rung.iter() {
            let Some(doorbell) = connected.get(chunk as usize).and_then(Option::as_ref) else {
                let object = Object::new("chunk", chunk.into());
                let kind = Finding::StrayDoorbell;
                self.report_unknown(kind, object, &[1], format_args!("{}", kind.text()));
                continue;
            };
            self.stats.counters.doorbells.increment();
            self.stats.tracer.record(IsmEvent::Bell, chunk, Default::default);
            for (sink, chunk) in self.rung_for(doorbell) {
                match receivers.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &sink)) {
                    Some((_, chunks)) => chunks.push(chunk),
                    None => receivers.push((sink, vec![chunk])),
                }
            }
        }
        receivers
    }
}
