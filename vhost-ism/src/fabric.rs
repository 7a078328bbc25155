//! Sharing of memory between guests: sessions by GID, slabs by pair of sessions, DMBs by token.
//!
//! A *session* of a guest's driver lasts from its first request to its reset. Each session has its own GID, so that no
//! object of a dead session can be mistaken for one of the next. The fabric decides the place of every slab in each
//! session's window; the guest's own thread maps it there. No call blocks: one lock, no I/O beyond memfds.

mod acquaintance;
mod destination;
mod dmb;
mod placement;
mod refusal;
mod session;
mod slabs;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use crate::abi::{CHUNK_SIZE, Gid, PERMISSIONS, Token};
use crate::event::EventSink;
use crate::slab::SlabId;
use crate::tape::{GuestTape, Random, Tape};

use dmb::Access;
use session::Session;
use slabs::{SlabKind, pair};
use state::State;

pub use destination::{Destination, Moved};
pub use dmb::Permissions;
pub use placement::{Attachment, Detached, Held, Mapping, PairSlab, Part, Placement, SharedBy};
pub use refusal::{Layout, Limits, Mode, Refusal};
pub use session::WINDOW_UNIT;

/// Maximum number of grants for single devices that a guest makes for all its DMBs together.
pub const MAX_GRANTS: u32 = 4096;

/// Numbers of objects in a fabric.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct FabricStats {
    /// Sessions.
    pub sessions: usize,
    /// Slabs.
    pub slabs: usize,
    /// Bytes in slabs.
    pub slab_bytes: u64,
    /// Bytes in allocated blocks of slabs, bell chunks included.
    pub used_bytes: u64,
    /// DMBs with a holder.
    pub dmbs: usize,
    /// Freed blocks that the host could not zero, and that are therefore never reused.
    pub lost_blocks: u64,
}

/// The fabric of one daemon. Serializes as its live objects.
#[derive(Debug, Serialize)]
pub struct Fabric {
    #[serde(skip)]
    id: u64,
    #[serde(skip)]
    chid: u16,
    #[serde(skip)]
    limits: Limits,
    #[serde(skip)]
    random: Random,
    /// Number of guests with a tape.
    #[serde(skip)]
    guests: AtomicU16,
    #[serde(flatten)]
    state: Mutex<State>,
}

impl Fabric {
    /// Creates an empty fabric with this SMC fabric id (CHID).
    pub fn new(chid: u16, limits: Limits) -> Self {
        Self::with_random(chid, limits, Random::default())
    }

    /// Creates an empty fabric that is recorded or replayed.
    pub fn with_tape(chid: u16, limits: Limits, tape: Arc<dyn Tape>) -> Self {
        Self::with_random(chid, limits, Random(Some(tape)))
    }

    fn with_random(chid: u16, limits: Limits, random: Random) -> Self {
        Self {
            id: random.nonzero(),
            chid,
            limits,
            state: Mutex::new(State {
                random: random.clone(),
                ..State::default()
            }),
            guests: AtomicU16::new(0),
            random,
        }
    }

    /// Returns the tape of the next guest, if the fabric has one. Guests are numbered in the order of the calls.
    pub fn next_tape(&self) -> Option<GuestTape> {
        self.random.0.clone().map(|tape| GuestTape {
            tape,
            guest: self.guests.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Returns the identity of the fabric.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the SMC fabric id (CHID).
    pub fn chid(&self) -> u16 {
        self.chid
    }

    /// Returns the limits of every guest.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Returns an unused GID: 128 random bits, both halves non-zero.
    pub fn new_gid(&self) -> Gid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.random.nonzero().to_be_bytes());
        bytes[8..].copy_from_slice(&self.random.nonzero().to_be_bytes());
        Gid(bytes)
    }

    /// Returns an unused device id.
    pub fn new_devid(&self) -> u64 {
        self.random.nonzero()
    }

    /// Adds a session.
    pub fn join(&self, gid: Gid, devid: u64, sink: Arc<EventSink>) {
        self.state()
            .sessions
            .insert(gid, Session::new(devid, sink, self.limits.window_size));
    }

    /// Removes a session: its tokens die, its attachments end. Returns the event sinks of the peers it shared memory
    /// with, which must be notified.
    pub fn leave(&self, gid: Gid) -> Vec<Arc<EventSink>> {
        let mut state = self.state();
        let Some(devid) = state.sessions.get(&gid).map(|session| session.devid) else {
            return Vec::new();
        };
        let peers = state.forget(gid);
        let mut held: Vec<Token> = state
            .dmbs
            .iter()
            .filter(|(_, dmb)| dmb.is_held_by(gid))
            .map(|(t, _)| *t)
            .collect();
        // The order is that of the unmaps to come: the same in every replay.
        held.sort_unstable();
        for token in held {
            state.detach(gid, devid, token);
        }
        state.drop_empty_slabs_of(gid);
        peers
    }

    /// Returns the DMBs that a session holds.
    pub fn held(&self, gid: Gid) -> Held {
        let state = self.state();
        let mut held = Held::default();
        for dmb in state.dmbs.values().filter(|dmb| dmb.is_held_by(gid)) {
            let list = match dmb.owner == gid {
                true => &mut held.owned,
                false => &mut held.attached,
            };
            list.push(state.chunk(gid, dmb));
        }
        held.owned.sort_unstable();
        held.attached.sort_unstable();
        held
    }

    /// Returns whether a session with this GID is up.
    pub fn is_up(&self, gid: Gid) -> bool {
        self.state().sessions.contains_key(&gid)
    }

    /// Returns the event sink of a session.
    pub fn sink(&self, gid: Gid) -> Result<Arc<EventSink>, Refusal> {
        Ok(self.state().sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?.sink.clone())
    }

    /// Allocates a DMB that only `peer` can attach.
    pub fn alloc_for_peer(&self, owner: Gid, peer: Gid, size: u64) -> Result<Placement, Refusal> {
        self.check_size(size)?;
        if owner == peer {
            return Err(Refusal::Invalid);
        }
        let mut state = self.state();
        if !state.sessions.contains_key(&peer) {
            return Err(Refusal::NoSuchPeer);
        }
        let kind = match self.limits.mode {
            Mode::Mapped => pair(owner, peer),
            Mode::Copy => SlabKind::Private(owner),
        };
        if let Err(refusal) = state.check_acquaintance(owner, &[peer]) {
            let sink = state.sessions.get(&peer).map(|session| session.sink.clone());
            drop(state);
            if let Some(sink) = sink.filter(|sink| sink.departures() > 0) {
                sink.report_overflow(owner);
            }
            return Err(refusal);
        }
        let placement = self.alloc_among_others(&mut state, kind, owner, size, Access::Peer(peer))?;
        state.acquaint(owner, &[peer]);
        Ok(placement)
    }

    /// Allocates a DMB in a slab that holds others of the same kind.
    fn alloc_among_others(
        &self,
        state: &mut State,
        kind: SlabKind,
        owner: Gid,
        size: u64,
        access: Access,
    ) -> Result<Placement, Refusal> {
        state.check_room(owner, &self.limits)?;
        let id = match state.slab_with_room(kind, owner, size, &self.limits) {
            Some(id) => id,
            None => state.new_large_slab(kind, owner, size, &self.limits)?,
        };
        let shared = state.slabs.get_mut(id).ok_or(Refusal::Full)?;
        let block = shared.slab.alloc(size).ok_or(Refusal::Full)?;
        state.add_dmb(owner, id, block, size, access)
    }

    /// Allocates a DMB that no guest can attach or move to until [`Fabric::grant`]; in mapped mode, in a slab of its
    /// own, and at most `max_areas` areas of the window.
    pub fn alloc(&self, owner: Gid, size: u64, max_areas: usize) -> Result<Placement, Refusal> {
        self.check_size(size)?;
        let mut state = self.state();
        let access = Access::Granted(Permissions::default());
        if self.limits.mode == Mode::Copy {
            if max_areas == 0 {
                return Err(Refusal::Areas(1));
            }
            return self.alloc_among_others(&mut state, SlabKind::Private(owner), owner, size, access);
        }
        state.check_room(owner, &self.limits)?;
        let len = size.next_power_of_two().max(WINDOW_UNIT);
        let id = state.new_slab(SlabKind::Solo, len)?;
        let placed = state.place_areas(owner, id, (0, size), max_areas, &self.limits);
        if placed.is_err() {
            state.slabs.remove(id);
        }
        placed?;
        let shared = state.slabs.get_mut(id).ok_or(Refusal::Full)?;
        let block = shared.slab.alloc(size).ok_or(Refusal::Full)?;
        state.add_dmb(owner, id, block, size, access)
    }

    fn check_size(&self, size: u64) -> Result<(), Refusal> {
        if size == 0 || size > self.limits.max_dmb_size {
            Err(Refusal::Invalid)
        } else {
            Ok(())
        }
    }

    /// Attaches a DMB to a session, in at most `max_areas` areas of its window.
    pub fn attach(&self, gid: Gid, token: Token, rw_perm: u32, max_areas: usize) -> Result<Attachment, Refusal> {
        let mut state = self.state();
        let session = state.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let devid = session.devid;
        let dmb = state
            .dmbs
            .get(&token)
            .filter(|dmb| dmb.owner_holds)
            .ok_or(Refusal::NoSuchDmb)?;
        dmb.check_attach(gid, devid, rw_perm)?;
        if self.limits.mode == Mode::Copy {
            return Err(Refusal::Attach);
        }
        let (id, owner_gid, block, size) = (dmb.slab, dmb.owner, dmb.block, dmb.size);
        let shared_by = match dmb.access {
            Access::Peer(_) => SharedBy::Pair,
            Access::Granted(_) => SharedBy::Granted,
        };
        let others: Vec<Gid> = dmb.attached.iter().copied().chain([owner_gid]).collect();
        state.check_room(gid, &self.limits)?;
        let owner = state.sessions.get(&owner_gid).ok_or(Refusal::NoSuchDmb)?;
        let owner_base = owner.places.get(&id).ok_or(Refusal::NoSuchDmb)?.base();
        let owner_sink = owner.sink.clone();
        state.check_acquaintance(gid, &others)?;
        let mapping = state.place_areas(gid, id, (block.offset(), size), max_areas, &self.limits)?;
        state.acquaint(gid, &others);
        if let Some(dmb) = state.dmbs.get_mut(&token) {
            dmb.attached.insert(gid);
        }
        if let Some(session) = state.sessions.get_mut(&gid) {
            session.dmbs += 1;
        }
        state.note_attachment(gid, devid, token, true);
        Ok(Attachment {
            placement: Placement::new(token, mapping, block.offset(), size),
            owner: owner_sink,
            owner_chunk: ((owner_base + block.offset()) / CHUNK_SIZE) as u32,
            shared_by,
        })
    }

    /// Ends a guest's hold on a DMB that it owns or has attached.
    pub fn detach(&self, gid: Gid, token: Token) -> Result<Detached, Refusal> {
        let mut state = self.state();
        let devid = state.sessions.get(&gid).map(|session| session.devid);
        let detached = devid.and_then(|devid| state.detach(gid, devid, token));
        detached.ok_or(Refusal::NoSuchDmb)
    }

    /// Takes the event sinks that attachments and detachments have been noted in, which must be flushed.
    pub fn take_noted(&self) -> Vec<Arc<EventSink>> {
        std::mem::take(&mut self.state().noted)
    }

    /// Returns the other holders of a DMB, which a ring of it must notify: the sink of each, and the first chunk of the
    /// DMB in its window. The session need not hold it any more: its last ring is collected after its detachment.
    pub fn other_holders(&self, gid: Gid, token: Token) -> Vec<(Arc<EventSink>, u32)> {
        let state = self.state();
        let others = state.dmbs.get(&token).map(|dmb| state.others(gid, dmb));
        others.unwrap_or_default()
    }

    /// Returns the slab of a DMB that the guest owns or has attached, if it has bells.
    pub fn pair_slab(&self, gid: Gid, token: Token) -> Result<PairSlab, Refusal> {
        let state = self.state();
        let dmb = state
            .dmbs
            .get(&token)
            .filter(|dmb| dmb.is_held_by(gid))
            .ok_or(Refusal::NoSuchDmb)?;
        let shared = state.slabs.get(dmb.slab).ok_or(Refusal::NoSuchDmb)?;
        let first = match shared.kind {
            SlabKind::Pair(lower, _) => lower,
            SlabKind::Private(owner) => owner,
            SlabKind::Solo => return Err(Refusal::Invalid),
        };
        let session = state.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let base = session.places.get(&dmb.slab).ok_or(Refusal::NoSuchDmb)?.base();
        Ok(PairSlab {
            base,
            len: shared.slab.memory().len,
            side: u32::from(gid != first),
        })
    }

    /// Checks that a guest owns or has attached a DMB.
    pub fn check_hold(&self, gid: Gid, token: Token) -> Result<(), Refusal> {
        let state = self.state();
        let dmb = state.dmbs.get(&token).filter(|dmb| dmb.is_held_by(gid));
        dmb.map(|_| ()).ok_or(Refusal::NoSuchDmb)
    }

    /// Sets the permissions of a DMB from [`Fabric::alloc`], on behalf of its owner or of a session with MANAGE: the
    /// default, or those of one device. The owner's budget of grants pays.
    pub fn grant(&self, gid: Gid, token: Token, devid: Option<u64>, permissions: u64) -> Result<(), Refusal> {
        let state = &mut *self.state();
        let own_devid = state.sessions.get(&gid).map(|session| session.devid);
        let dmb = state
            .dmbs
            .get_mut(&token)
            .filter(|dmb| dmb.owner_holds && own_devid.is_some_and(|devid| dmb.may_manage(gid, devid)))
            .ok_or(Refusal::NoSuchDmb)?;
        // For its one peer only: no other guest has the slab.
        let Access::Granted(table) = &mut dmb.access else {
            return Err(Refusal::Invalid);
        };
        let permissions = u32::try_from(permissions).map_err(|_| Refusal::Invalid)?;
        if permissions & !PERMISSIONS != 0 {
            return Err(Refusal::Invalid);
        }
        let is_new = devid.is_some_and(|devid| !table.has(devid));
        let session = state.sessions.get_mut(&dmb.owner).ok_or(Refusal::NoSuchPeer)?;
        if is_new && session.grants >= MAX_GRANTS {
            return Err(Refusal::Full);
        }
        session.grants += u32::from(is_new);
        table.set(devid, permissions);
        Ok(())
    }

    /// Returns the unused slabs in this session's window, to be unmapped and then [vacated](Fabric::vacate).
    pub fn stale_slabs(&self, gid: Gid) -> Vec<SlabId> {
        self.state()
            .sessions
            .get(&gid)
            .map(|session| session.stale.clone())
            .unwrap_or_default()
    }

    /// Makes the range of a stale slab that has been unmapped available again.
    pub fn vacate(&self, gid: Gid, id: SlabId) {
        if let Some(session) = self.state().sessions.get_mut(&gid) {
            session.vacate(id);
        }
    }

    /// Returns the numbers of objects.
    pub fn stats(&self) -> FabricStats {
        let state = self.state();
        FabricStats {
            sessions: state.sessions.len(),
            slabs: state.slabs.len(),
            slab_bytes: state.slabs.iter().map(|(_, s)| s.slab.memory().len).sum(),
            used_bytes: state.slabs.iter().map(|(_, s)| s.slab.used()).sum(),
            dmbs: state.dmbs.len(),
            lost_blocks: state.lost_blocks,
        }
    }
}

#[cfg(test)]
mod tests;
