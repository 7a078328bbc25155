//! The slabs of a fabric, by number and by kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Index;

use serde::{Serialize, Serializer};

use crate::abi::Gid;
use crate::inspect;
use crate::slab::{Slab, SlabId};

/// A slab and the sessions that may map it.
#[derive(Debug, Serialize)]
pub struct SharedSlab {
    #[serde(flatten)]
    pub slab: Slab,
    pub kind: SlabKind,
    /// Number of DMBs with a holder.
    pub live: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlabKind {
    /// Shared by exactly these two sessions, lower GID first, until one of them leaves.
    Pair(Gid, Gid),
    /// Holds one DMB of the draft's ALLOC.
    Solo,
    /// Holds the DMBs of this session in copy mode, and is mapped by no other.
    Private(Gid),
}

/// Returns the kind of slab that two sessions share.
pub fn pair(a: Gid, b: Gid) -> SlabKind {
    SlabKind::Pair(a.min(b), a.max(b))
}

/// Slabs by number, and by kind, so that a request does not search those of other sessions.
#[derive(Debug, Default)]
pub struct Slabs {
    by_id: BTreeMap<SlabId, SharedSlab>,
    /// Those that may get another DMB.
    by_kind: HashMap<SlabKind, BTreeSet<SlabId>>,
}

impl Slabs {
    pub fn insert(&mut self, id: SlabId, shared: SharedSlab) {
        if shared.kind != SlabKind::Solo {
            self.by_kind.entry(shared.kind).or_default().insert(id);
        }
        self.by_id.insert(id, shared);
    }

    pub fn remove(&mut self, id: SlabId) {
        let Some(shared) = self.by_id.remove(&id) else { return };
        if let Some(of_kind) = self.by_kind.get_mut(&shared.kind) {
            of_kind.remove(&id);
            if of_kind.is_empty() {
                self.by_kind.remove(&shared.kind);
            }
        }
    }

    pub fn get(&self, id: SlabId) -> Option<&SharedSlab> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: SlabId) -> Option<&mut SharedSlab> {
        self.by_id.get_mut(&id)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SlabId, &SharedSlab)> {
        self.by_id.iter().map(|(id, shared)| (*id, shared))
    }

    /// Iterates over those of a kind for several DMBs, oldest first.
    pub fn of_kind(&self, kind: SlabKind) -> impl Iterator<Item = (SlabId, &SharedSlab)> {
        let ids = self.by_kind.get(&kind).into_iter().flatten();
        ids.filter_map(|&id| Some((id, self.get(id)?)))
    }
}

impl Index<SlabId> for Slabs {
    type Output = SharedSlab;

    fn index(&self, id: SlabId) -> &SharedSlab {
        &self.by_id[&id]
    }
}

impl Serialize for Slabs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        inspect::by_id(&self.by_id, serializer)
    }
}
