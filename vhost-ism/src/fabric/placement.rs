//! Locations of slabs and DMBs in the windows of guests.

use std::sync::Arc;

use crate::abi::{Area, Token};
use crate::event::EventSink;
use crate::slab::SlabMemory;

/// A part of a slab that is contiguous in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Offset in the guest's window.
    pub base: u64,
    /// Offset in the slab.
    pub from: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A slab at its place in one guest's window.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Memory to map.
    pub memory: SlabMemory,
    /// Parts that cover the slab, in ascending order; a single one if it has several DMBs.
    pub parts: Vec<Part>,
}

impl Mapping {
    /// Returns the offset of the first part in the guest's window.
    pub fn base(&self) -> u64 {
        self.parts.first().map_or(0, |part| part.base)
    }

    /// Returns the areas of the window that hold this range of the slab.
    pub fn areas(&self, offset: u64, size: u64) -> Vec<Area> {
        let within = |part: &Part| {
            let start = offset.max(part.from);
            let end = (offset + size).min(part.from + part.len);
            (start < end).then(|| Area {
                offset: (part.base + (start - part.from)).into(),
                size: (end - start).into(),
            })
        };
        self.parts.iter().filter_map(within).collect()
    }
}

/// A DMB in one guest's window.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Token of the DMB.
    pub token: Token,
    /// The slab that holds it.
    pub mapping: Mapping,
    /// Offset of the first area in the guest's window.
    pub offset: u64,
    /// Length as allocated.
    pub size: u64,
    /// The areas of the window, in the order of the DMB.
    pub areas: Vec<Area>,
}

impl Placement {
    /// Describes a DMB at this offset in its slab.
    pub fn new(token: Token, mapping: Mapping, offset: u64, size: u64) -> Self {
        Self {
            token,
            offset: mapping.base() + offset,
            size,
            areas: mapping.areas(offset, size),
            mapping,
        }
    }
}

/// An attached DMB: its location in the attacher's window, and the target of its doorbell.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Location in the attacher's window.
    pub placement: Placement,
    /// Events of the owner.
    pub owner: Arc<EventSink>,
    /// First chunk of the DMB in the owner's window.
    pub owner_chunk: u32,
    /// The guests that can attach the DMB.
    pub shared_by: SharedBy,
}

/// The guests that can attach a DMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedBy {
    /// The owner and one peer.
    Pair,
    /// The owner and all guests with its grant.
    Granted,
}

/// A slab of two guests in the window of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairSlab {
    /// Offset in the guest's window.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Side of the guest: 0 for the lower GID, 1 for the higher.
    pub side: u32,
}

/// The DMBs that a session holds, by their first chunks in its window, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// DMBs that the session owns.
    pub owned: Vec<u32>,
    /// DMBs of peers that it has attached.
    pub attached: Vec<u32>,
}

/// The hold on a DMB that a guest gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// The guest owned the DMB.
    Owned {
        /// First chunk of the DMB in the guest's window.
        chunk: u32,
        /// Number of guests that still have it attached.
        attached: usize,
    },
    /// The guest had attached the DMB.
    Attached {
        /// First chunk of the DMB in the guest's window, which is also its doorbell.
        chunk: u32,
    },
}
