//! Who shares which memory: sessions by GID, slabs by pair of sessions, DMBs by token.
//!
//! A *session* is one life of a guest's driver, from its first request to its reset; it has a GID of its own, so that
//! nothing of a dead session can be taken for the next one's. The fabric decides where every slab lies in each session's
//! window, and leaves mapping it there to the guest's own thread. Nothing here waits: one lock, no I/O beyond memfds.

mod dmb;
mod session;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngCore;
use thiserror::Error;

use crate::abi::{CHUNK_SIZE, Gid, Token};
use crate::event::EventSink;
use crate::slab::{SlabId, SlabMemory};

use dmb::Access;
use session::{Session, WINDOW_UNIT};
use state::{SlabKind, State, pair};

pub use dmb::Permissions;

/// Bounds that hold for every guest of a fabric.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of each guest's window that hold DMBs, a multiple of 2 MiB. One pair of guests gets at most half of it.
    pub window_size: u64,
    /// Largest DMB in bytes, a power of two.
    pub max_dmb_size: u64,
    /// Most DMBs a guest owns and attaches together.
    pub max_dmbs: u32,
    /// Most slabs in a guest's window. Each is a memory region of the guest's VMM, which slows down past 100 of them.
    pub max_maps: u32,
}

/// Why the fabric refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The token names no live DMB.
    #[error("no live DMB has this token")]
    NoSuchDmb,
    /// The GID or device id names no live session.
    #[error("no guest with a running driver has this GID")]
    NoSuchPeer,
    /// Size zero, over the limit, or a peer that is the guest itself.
    #[error("the request makes no sense for this fabric")]
    Invalid,
    /// The guest may not attach this DMB.
    #[error("attaching was not granted")]
    Attach,
    /// Read access was not asked for or not granted.
    #[error("read access was not granted or not asked for")]
    Read,
    /// Write access was not asked for or not granted.
    #[error("write access was not granted or not asked for")]
    Write,
    /// Window, map budget or DMB table is full.
    #[error("no room is left in the window, the slab budget or the DMB table")]
    Full,
    /// The host refused memory.
    #[error("the host has no memory for a slab")]
    NoMemory,
}

/// A slab at its place in one guest's window.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// What to map.
    pub memory: SlabMemory,
    /// Offset in the guest's window.
    pub base: u64,
}

/// A DMB in one guest's window.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The DMB.
    pub token: Token,
    /// The slab that holds it.
    pub mapping: Mapping,
    /// Offset in the guest's window.
    pub offset: u64,
    /// Length as allocated.
    pub size: u64,
}

/// An attached DMB: where it is here, and whom its doorbell wakes.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Where it is in the attacher's window.
    pub placement: Placement,
    /// The owner's events.
    pub owner: Arc<EventSink>,
    /// The DMB's first chunk in the owner's window.
    pub owner_chunk: u32,
}

/// A slab of two guests in the window of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairSlab {
    /// Offset in the guest's window.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Which of the two the guest is.
    pub side: u32,
}

/// What became of a DMB that a guest let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetGo {
    /// The guest owned it.
    Owned,
    /// The guest had attached it; its doorbell is this chunk of the guest's own window.
    Attached {
        /// First chunk in the guest's window.
        chunk: u32,
    },
}

/// Counts for the statistics.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct FabricStats {
    /// Sessions that are up.
    pub sessions: usize,
    /// Slabs that exist.
    pub slabs: usize,
    /// Bytes of all slabs.
    pub slab_bytes: u64,
    /// Bytes of all slabs that DMBs hold.
    pub used_bytes: u64,
    /// DMBs somebody still holds.
    pub dmbs: usize,
    /// Freed ranges the host could not zero and that are therefore never reused.
    pub lost_blocks: u64,
}

/// The fabric of one daemon.
#[derive(Debug)]
pub struct Fabric {
    id: u64,
    chid: u16,
    limits: Limits,
    state: Mutex<State>,
}

impl Fabric {
    /// An empty fabric with this SMC fabric id.
    pub fn new(chid: u16, limits: Limits) -> Self {
        Self {
            id: random_nonzero(),
            chid,
            limits,
            state: Mutex::default(),
        }
    }

    /// Identity of the fabric.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// SMC fabric id.
    pub fn chid(&self) -> u16 {
        self.chid
    }

    /// Bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the state whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A GID nobody has: 128 random bits, both halves non-zero.
    pub fn new_gid(&self) -> Gid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random_nonzero().to_be_bytes());
        bytes[8..].copy_from_slice(&random_nonzero().to_be_bytes());
        Gid(bytes)
    }

    /// A session begins.
    pub fn join(&self, gid: Gid, devid: u64, sink: Arc<EventSink>) {
        self.state()
            .sessions
            .insert(gid, Session::new(devid, sink, self.limits.window_size));
    }

    /// A session ends: its tokens die, its attachments end. Returns the events of those it shared memory with, who are
    /// to be told.
    pub fn leave(&self, gid: Gid) -> Vec<Arc<EventSink>> {
        let mut state = self.state();
        if state.sessions.remove(&gid).is_none() {
            return Vec::new();
        }
        let mut peers: Vec<Gid> = Vec::new();
        for shared in state.slabs.values() {
            if let SlabKind::Pair(a, b) = shared.kind
                && (a == gid || b == gid)
            {
                peers.push(if a == gid { b } else { a });
            }
        }
        let held: Vec<Token> = state
            .dmbs
            .iter()
            .filter(|(_, dmb)| dmb.is_held_by(gid))
            .map(|(t, _)| *t)
            .collect();
        for token in held {
            if let Some(dmb) = state.dmbs.get(&token) {
                peers.extend(dmb.attached.iter().chain([&dmb.owner]).filter(|peer| **peer != gid));
            }
            state.let_go(gid, token);
        }
        state.drop_empty_slabs_of(gid);
        peers.sort_unstable();
        peers.dedup();
        peers
            .iter()
            .filter_map(|peer| Some(state.sessions.get(peer)?.sink.clone()))
            .collect()
    }

    /// Whether a session with this GID is up.
    pub fn is_up(&self, gid: Gid) -> bool {
        self.state().sessions.contains_key(&gid)
    }

    /// The events of a session.
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
        state.check_room(owner, &self.limits)?;
        let kind = pair(owner, peer);
        let id = match state.slab_with_room(kind, owner, size, &self.limits) {
            Some(id) => id,
            None => state.new_pair_slab(kind, owner, size, &self.limits)?,
        };
        let shared = state.slabs.get_mut(&id).ok_or(Refusal::Full)?;
        let block = shared.slab.alloc(size).ok_or(Refusal::Full)?;
        state.add_dmb(owner, id, block, size, Access::Peer(peer))
    }

    /// Allocates a DMB in memory of its own, which nobody can attach until [`Fabric::grant`].
    pub fn alloc(&self, owner: Gid, size: u64) -> Result<Placement, Refusal> {
        self.check_size(size)?;
        let mut state = self.state();
        state.check_room(owner, &self.limits)?;
        let len = size.next_power_of_two().max(WINDOW_UNIT);
        let id = state.new_slab(SlabKind::Solo, len)?;
        let placed = state.place(owner, id, &self.limits);
        if placed.is_err() {
            state.slabs.remove(&id);
        }
        placed?;
        let shared = state.slabs.get_mut(&id).ok_or(Refusal::Full)?;
        let block = shared.slab.alloc(size).ok_or(Refusal::Full)?;
        state.add_dmb(owner, id, block, size, Access::Granted(Permissions::default()))
    }

    fn check_size(&self, size: u64) -> Result<(), Refusal> {
        if size == 0 || size > self.limits.max_dmb_size {
            Err(Refusal::Invalid)
        } else {
            Ok(())
        }
    }

    /// Attaches a DMB to a session.
    pub fn attach(&self, gid: Gid, token: Token, rw_perm: u32) -> Result<Attachment, Refusal> {
        let mut state = self.state();
        let session = state.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let devid = session.devid;
        let dmb = state
            .dmbs
            .get(&token)
            .filter(|dmb| dmb.owner_holds)
            .ok_or(Refusal::NoSuchDmb)?;
        dmb.check_attach(gid, devid, rw_perm)?;
        let (id, owner_gid, block, size) = (dmb.slab, dmb.owner, dmb.block, dmb.size);
        state.check_room(gid, &self.limits)?;
        let owner = state.sessions.get(&owner_gid).ok_or(Refusal::NoSuchDmb)?;
        let owner_base = owner.places.get(&id).ok_or(Refusal::NoSuchDmb)?.base();
        let owner_sink = owner.sink.clone();
        let mapping = state.place(gid, id, &self.limits)?;
        if let Some(dmb) = state.dmbs.get_mut(&token) {
            dmb.attached.insert(gid);
        }
        if let Some(session) = state.sessions.get_mut(&gid) {
            session.dmbs += 1;
        }
        let offset = mapping.base + block.offset();
        Ok(Attachment {
            placement: Placement {
                token,
                mapping,
                offset,
                size,
            },
            owner: owner_sink,
            owner_chunk: ((owner_base + block.offset()) / CHUNK_SIZE) as u32,
        })
    }

    /// A guest lets go of a DMB it owns or has attached.
    pub fn detach(&self, gid: Gid, token: Token) -> Result<LetGo, Refusal> {
        self.state().let_go(gid, token).ok_or(Refusal::NoSuchDmb)
    }

    /// The slab of a DMB that the guest owns or has attached, if it is one of two guests.
    pub fn pair_slab(&self, gid: Gid, token: Token) -> Result<PairSlab, Refusal> {
        let state = self.state();
        let dmb = state
            .dmbs
            .get(&token)
            .filter(|dmb| dmb.is_held_by(gid))
            .ok_or(Refusal::NoSuchDmb)?;
        let shared = state.slabs.get(&dmb.slab).ok_or(Refusal::NoSuchDmb)?;
        let SlabKind::Pair(lower, _) = shared.kind else {
            return Err(Refusal::Invalid);
        };
        let session = state.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let base = session.places.get(&dmb.slab).ok_or(Refusal::NoSuchDmb)?.base();
        Ok(PairSlab {
            base,
            len: shared.slab.memory().len,
            side: u32::from(gid != lower),
        })
    }

    /// The owner of a DMB from [`Fabric::alloc`] sets what others may do with it: all of them, or one device.
    pub fn grant(&self, owner: Gid, token: Token, devid: Option<u64>, permissions: u64) -> Result<(), Refusal> {
        let mut state = self.state();
        let dmb = state
            .dmbs
            .get_mut(&token)
            .filter(|dmb| dmb.owner_holds)
            .ok_or(Refusal::NoSuchDmb)?;
        if dmb.owner != owner {
            return Err(Refusal::NoSuchDmb);
        }
        match &mut dmb.access {
            // Exactly one peer, for good: the slab is visible to nobody else.
            Access::Peer(_) => Err(Refusal::Invalid),
            Access::Granted(table) => {
                table.set(devid, u32::try_from(permissions).map_err(|_| Refusal::Invalid)?);
                Ok(())
            }
        }
    }

    /// Slabs in this session's window that serve nobody any more, to be unmapped and then [vacated](Fabric::vacate).
    pub fn stale_slabs(&self, gid: Gid) -> Vec<SlabId> {
        self.state()
            .sessions
            .get(&gid)
            .map(|session| session.stale.clone())
            .unwrap_or_default()
    }

    /// A stale slab is out of the session's window: its range may be used again.
    pub fn vacate(&self, gid: Gid, id: SlabId) {
        if let Some(session) = self.state().sessions.get_mut(&gid) {
            session.vacate(id);
        }
    }

    /// Counts for the statistics.
    pub fn stats(&self) -> FabricStats {
        let state = self.state();
        FabricStats {
            sessions: state.sessions.len(),
            slabs: state.slabs.len(),
            slab_bytes: state.slabs.values().map(|s| s.slab.memory().len).sum(),
            used_bytes: state.slabs.values().map(|s| s.slab.used()).sum(),
            dmbs: state.dmbs.len(),
            lost_blocks: state.lost_blocks,
        }
    }
}

fn random_nonzero() -> u64 {
    loop {
        let value = rand::rng().next_u64();
        if value != 0 {
            return value;
        }
    }
}

#[cfg(test)]
mod tests;
