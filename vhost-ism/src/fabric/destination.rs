//! Moves into DMBs, in copy mode.
//!
//! The copy itself is made without the fabric's lock. Until it is done the move holds the DMB, as an attachment does:
//! its memory is not given to another DMB meanwhile.

use std::sync::Arc;

use super::refusal::Refusal;
use super::state::State;
use super::{Fabric, dmb};
use crate::abi::{CHUNK_SIZE, Gid, Token};
use crate::event::EventSink;
use crate::slab_view::SlabView;

/// The range of a DMB that a move writes to.
#[derive(Debug)]
pub struct Destination {
    /// This process' mapping of the slab.
    pub view: Arc<SlabView>,
    /// Offset in the slab in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A move that is done, into a DMB whose owner still has it.
#[derive(Debug)]
pub struct Moved {
    /// Events of the owner.
    pub owner: Arc<EventSink>,
    /// First chunk of the DMB in the owner's window.
    pub owner_chunk: u32,
    /// First chunk of the DMB in its slab.
    pub slab_chunk: u32,
    /// This process' mapping of the slab.
    pub view: Arc<SlabView>,
}

impl Fabric {
    /// Begins a move of `length` bytes into a DMB. Every destination must be given to [`Fabric::end_move`].
    pub fn begin_move(&self, gid: Gid, token: Token, offset: u64, length: u64) -> Result<Destination, Refusal> {
        let mut state = self.state();
        let session = state.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let dmb = state.live(token)?;
        let (devid, is_peer) = (session.devid, session.peers.contains(&dmb.owner));
        dmb.check_move(gid, devid, offset, length)?;
        let (id, owner, start) = (dmb.slab, dmb.owner, dmb.block.offset());
        let view = state.slabs.get(id).and_then(|shared| shared.slab.view().cloned());
        let view = view.ok_or(Refusal::Invalid)?;
        if !is_peer {
            state.check_acquaintance(gid, &[owner])?;
            state.acquaint(gid, &[owner]);
        }
        if let Some(dmb) = state.dmbs.get_mut(&token) {
            dmb.moves += 1;
        }
        Ok(Destination {
            view,
            offset: start + offset,
            length,
        })
    }

    /// Ends a move. Returns nothing if the owner has detached the DMB meanwhile.
    pub fn end_move(&self, token: Token) -> Option<Moved> {
        let mut state = self.state();
        let dmb = state.dmbs.get_mut(&token)?;
        dmb.moves -= 1;
        let (id, block) = (dmb.slab, dmb.block);
        if !dmb.is_held() {
            state.dmbs.remove(&token);
            state.free_block(id, block);
            return None;
        }
        let dmb = state.live(token).ok()?;
        let owner = state.sessions.get(&dmb.owner)?;
        Some(Moved {
            owner: owner.sink.clone(),
            owner_chunk: state.chunk(dmb.owner, dmb),
            slab_chunk: (block.offset() / CHUNK_SIZE) as u32,
            view: state.slabs.get(id)?.slab.view()?.clone(),
        })
    }

    /// Refuses further moves of a session into a DMB: a driver that has posted several must not have one executed after
    /// an earlier one was refused.
    pub fn break_moves(&self, gid: Gid, token: Token) {
        if let Some(dmb) = self.state().dmbs.get_mut(&token) {
            dmb.broken.insert(gid);
        }
    }
}

impl State {
    /// Returns a DMB whose owner has not detached it.
    fn live(&self, token: Token) -> Result<&dmb::Dmb, Refusal> {
        let dmb = self.dmbs.get(&token).filter(|dmb| dmb.owner_holds);
        dmb.ok_or(Refusal::NoSuchDmb)
    }
}
