//! The tables behind the fabric's lock, and the operations that keep them consistent.

use std::collections::HashMap;
use std::sync::Arc;

use log::warn;
use serde::Serialize;

use super::dmb::{Access, Dmb};
use super::placement::{Detached, Mapping, Placement};
use super::refusal::{Limits, Mode, Refusal};
use super::session::{Session, WINDOW_UNIT};
use super::slabs::{SharedSlab, SlabKind, Slabs};
use crate::abi::{CHUNK_SIZE, Gid, Token};
use crate::event::{AttachmentEvent, EventSink};
use crate::slab::{Block, Slab, SlabId};
use crate::tape::Random;

/// Size of a pair's first slab; each further one is twice as large, up to [`MAX_SLAB`]. Few and large: a slab costs the
/// VMM a memory region, and the host only the pages that were touched.
const MIN_SLAB: u64 = 16 << 20;
const MAX_SLAB: u64 = 32 << 20;

/// The mutable part of a fabric.
#[derive(Debug, Default, Serialize)]
pub struct State {
    #[serde(serialize_with = "crate::inspect::by_id")]
    pub sessions: HashMap<Gid, Session>,
    pub slabs: Slabs,
    // Serialized without the tokens, which let any session attach a granted DMB.
    #[serde(serialize_with = "crate::inspect::values")]
    pub dmbs: HashMap<Token, Dmb>,
    /// Sinks with noted attachments that have not been flushed.
    #[serde(skip)]
    pub noted: Vec<Arc<EventSink>>,
    #[serde(skip)]
    pub random: Random,
    #[serde(skip)]
    pub next_slab: u64,
    #[serde(skip)]
    pub lost_blocks: u64,
}

impl State {
    /// Checks that the session is up and may hold one more DMB.
    pub fn check_room(&self, gid: Gid, limits: &Limits) -> Result<(), Refusal> {
        let session = self.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        if session.dmbs >= limits.max_dmbs {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// Creates a slab, as yet in no window.
    pub fn new_slab(&mut self, kind: SlabKind, len: u64) -> Result<SlabId, Refusal> {
        self.next_slab += 1;
        let id = SlabId(self.next_slab);
        let slab = match kind {
            SlabKind::Pair(..) | SlabKind::Solo => Slab::new(id, len),
            SlabKind::Private(_) => Slab::with_view(id, len),
        };
        let mut slab = slab.map_err(|error| {
            warn!("the host refused a slab of {len} bytes: {error}");
            Refusal::NoMemory
        })?;
        if kind != SlabKind::Solo {
            // The first chunk holds the bells for the life of the slab.
            slab.alloc(CHUNK_SIZE);
        }
        self.slabs.insert(id, SharedSlab { slab, kind, live: 0 });
        Ok(id)
    }

    /// Finds a slab of this kind with a free block of `size` and a place in the owner's window.
    pub fn slab_with_room(&mut self, kind: SlabKind, owner: Gid, size: u64, limits: &Limits) -> Option<SlabId> {
        let of_kind = self.slabs.of_kind(kind);
        let fitting: Vec<SlabId> = of_kind.filter(|(_, s)| s.slab.fits(size)).map(|(id, _)| id).collect();
        fitting.into_iter().find(|&id| self.place(owner, id, limits).is_ok())
    }

    /// Creates a slab of many DMBs, twice as large as the largest of its kind so far, or the largest smaller size that
    /// fits the owner's window. A peer's place is allocated on its first use, so that no guest can fill another guest's
    /// window.
    pub fn new_large_slab(
        &mut self,
        kind: SlabKind,
        owner: Gid,
        size: u64,
        limits: &Limits,
    ) -> Result<SlabId, Refusal> {
        let budget = match limits.mode {
            Mode::Mapped => limits.window_size / 2,
            Mode::Copy => limits.window_size,
        };
        let lens = self.slabs.of_kind(kind).map(|(_, s)| s.slab.memory().len);
        let (largest, total) = lens.fold((0, 0), |(largest, total), len| (len.max(largest), total + len));
        // The bell chunk occupies a block in the first half of the slab.
        let least = (2 * size.next_power_of_two()).max(WINDOW_UNIT);
        let mut len = (largest * 2).clamp(MIN_SLAB, MAX_SLAB).max(least);
        while len >= least {
            if total + len <= budget {
                let id = self.new_slab(kind, len)?;
                if self.place(owner, id, limits).is_ok() {
                    return Ok(id);
                }
                self.slabs.remove(id);
            }
            len /= 2;
        }
        Err(Refusal::Full)
    }

    /// Allocates a slab's place in a session's window unless it has one.
    pub fn place(&mut self, gid: Gid, id: SlabId, limits: &Limits) -> Result<Mapping, Refusal> {
        let shared = self.slabs.get(id).ok_or(Refusal::NoSuchDmb)?;
        let memory = shared.slab.memory().clone();
        // A slab of one DMB can be a list of areas.
        let max_part = (shared.kind == SlabKind::Solo).then_some(limits.max_area_size);
        let session = self.sessions.get_mut(&gid).ok_or(Refusal::NoSuchPeer)?;
        let parts = session
            .place(id, memory.len, max_part, limits.max_maps)
            .ok_or(Refusal::Full)?;
        Ok(Mapping { memory, parts })
    }

    /// Allocates a slab's place as [`State::place`] does, unless this range of it takes more than `max_areas` areas.
    pub fn place_areas(
        &mut self,
        gid: Gid,
        id: SlabId,
        (offset, size): (u64, u64),
        max_areas: usize,
        limits: &Limits,
    ) -> Result<Mapping, Refusal> {
        let session = self.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let (was_placed, was_stale) = (session.places.contains_key(&id), session.stale.contains(&id));
        let mapping = self.place(gid, id, limits)?;
        let areas = mapping.areas(offset, size).len();
        if areas <= max_areas {
            return Ok(mapping);
        }
        if let Some(session) = self.sessions.get_mut(&gid) {
            match (was_placed, was_stale) {
                (false, _) => session.vacate(id),
                // It may still be mapped.
                (true, true) => session.mark_stale(id),
                (true, false) => {}
            }
        }
        Err(Refusal::Areas(areas as u64))
    }

    /// Creates a DMB in a block of a slab that has a place in the owner's window.
    pub fn add_dmb(
        &mut self,
        owner: Gid,
        id: SlabId,
        block: Block,
        size: u64,
        access: Access,
    ) -> Result<Placement, Refusal> {
        let shared = self.slabs.get_mut(id).ok_or(Refusal::Full)?;
        shared.live += 1;
        let memory = shared.slab.memory().clone();
        let session = self.sessions.get_mut(&owner).ok_or(Refusal::NoSuchPeer)?;
        session.dmbs += 1;
        let parts = session.places.get(&id).ok_or(Refusal::Full)?.parts();
        let token = loop {
            let token = Token(self.random.nonzero().into());
            if !self.dmbs.contains_key(&token) {
                break token;
            }
        };
        self.dmbs.insert(token, Dmb::new(owner, id, block, size, access));
        Ok(Placement::new(token, Mapping { memory, parts }, block.offset(), size))
    }

    /// Returns the first chunk of a DMB in the window of a session, from the start of the slab if it is not there.
    pub fn chunk(&self, gid: Gid, dmb: &Dmb) -> u32 {
        let place = self.sessions.get(&gid).and_then(|s| s.places.get(&dmb.slab));
        let base = place.map_or(0, |place| place.base());
        ((base + dmb.block.offset()) / CHUNK_SIZE) as u32
    }

    /// Returns the holders of a DMB other than a session, in the order of their GIDs after the owner: the sink of each,
    /// and the first chunk of the DMB in its window.
    pub fn others(&self, gid: Gid, dmb: &Dmb) -> Vec<(Arc<EventSink>, u32)> {
        let owner = dmb.owner_holds.then_some(dmb.owner);
        let holders = owner.iter().chain(&dmb.attached).filter(|holder| **holder != gid);
        let target = |holder: &Gid| Some((self.sessions.get(holder)?.sink.clone(), self.chunk(*holder, dmb)));
        holders.filter_map(target).collect()
    }

    /// Notes for the other holders of a DMB that a device has attached or detached it.
    pub fn note_attachment(&mut self, gid: Gid, devid: u64, token: Token, attached: bool) {
        let Some(dmb) = self.dmbs.get(&token) else { return };
        let peers = dmb.attached.len() as u64;
        for (sink, chunk) in self.others(gid, dmb) {
            let event = AttachmentEvent {
                chunk,
                devid,
                peers,
                attached,
            };
            if sink.note(event) {
                self.noted.push(sink);
            }
        }
    }

    /// Ends the hold of a device on a DMB. The last holder's detach frees it.
    pub fn detach(&mut self, gid: Gid, devid: u64, token: Token) -> Option<Detached> {
        let chunk = self.chunk(gid, self.dmbs.get(&token)?);
        let dmb = self.dmbs.get_mut(&token)?;
        let mut grants = 0;
        let detached = if dmb.owner == gid && dmb.owner_holds {
            dmb.owner_holds = false;
            if let Access::Granted(table) = &mut dmb.access {
                grants = table.clear();
            }
            Detached::Owned {
                chunk,
                attached: dmb.attached.len(),
            }
        } else if dmb.attached.remove(&gid) {
            Detached::Attached { chunk }
        } else {
            return None;
        };
        let (id, block, free) = (dmb.slab, dmb.block, !dmb.is_held());
        if let Some(session) = self.sessions.get_mut(&gid) {
            session.dmbs -= 1;
            session.grants -= grants;
            session.sink.forget(chunk);
        }
        self.note_attachment(gid, devid, token, false);
        if free {
            self.dmbs.remove(&token);
            self.free_block(id, block);
        }
        // A solo slab leaves the window with the guest's only hold on it.
        if self.slabs.get(id).is_some_and(|s| s.kind == SlabKind::Solo)
            && let Some(session) = self.sessions.get_mut(&gid)
        {
            session.mark_stale(id);
        }
        Some(detached)
    }

    /// Frees the block of a DMB without holders, and its slab if that is unused now.
    pub fn free_block(&mut self, id: SlabId, block: Block) {
        let Some(shared) = self.slabs.get_mut(id) else { return };
        if let Err(error) = shared.slab.free(block) {
            warn!("a freed DMB could not be zeroed and will not be reused: {error}");
            self.lost_blocks += 1;
        }
        shared.live -= 1;
        let dead = match shared.kind {
            SlabKind::Solo => true,
            SlabKind::Pair(a, b) => !(self.sessions.contains_key(&a) && self.sessions.contains_key(&b)),
            SlabKind::Private(owner) => !self.sessions.contains_key(&owner),
        };
        if dead && self.slabs.get(id).is_some_and(|s| s.live == 0) {
            self.drop_slab(id);
        }
    }

    /// Drops the empty slabs of a session that left: no remaining peer can use them.
    pub fn drop_empty_slabs_of(&mut self, gid: Gid) {
        let is_of = |kind: SlabKind| match kind {
            SlabKind::Pair(a, b) => a == gid || b == gid,
            SlabKind::Private(owner) => owner == gid,
            SlabKind::Solo => false,
        };
        let empty: Vec<SlabId> = self
            .slabs
            .iter()
            .filter(|(_, s)| s.live == 0 && is_of(s.kind))
            .map(|(id, _)| id)
            .collect();
        for id in empty {
            self.drop_slab(id);
        }
    }

    /// Drops a slab, and marks it stale in every window that has it, for the session to unmap.
    pub fn drop_slab(&mut self, id: SlabId) {
        self.slabs.remove(id);
        for session in self.sessions.values_mut() {
            session.mark_stale(id);
        }
    }
}
