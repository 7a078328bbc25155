//! A session in the fabric: its window, and the number of DMBs it holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::abi::Gid;
use crate::buddy::Buddy;
use crate::event::EventSink;
use crate::slab::SlabId;

/// Alignment of slabs in a window: Linux describes device memory in units of 2 MiB (memory subsections), and a driver
/// that wants compound pages of that size must not find two slabs in one.
pub const WINDOW_UNIT: u64 = 2 << 20;

/// Location of a slab in a window.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    unit: u32,
    order: u32,
}

impl Place {
    /// Returns the offset in the window in bytes.
    pub fn base(self) -> u64 {
        u64::from(self.unit) * WINDOW_UNIT
    }
}

/// A running driver.
#[derive(Debug, Serialize)]
pub struct Session {
    #[serde(serialize_with = "crate::inspect::hex")]
    pub devid: u64,
    #[serde(skip)]
    pub sink: Arc<EventSink>,
    /// DMBs owned and attached.
    pub dmbs: u32,
    /// Grants for single devices, of all DMBs it owns.
    #[serde(skip)]
    pub grants: u32,
    #[serde(rename = "slabs", serialize_with = "slabs")]
    pub places: HashMap<SlabId, Place>,
    /// Slabs that have a place but are no longer used.
    pub stale: Vec<SlabId>,
    /// Live sessions with which this one has shared a DMB. For each there is a place among the departures that wait for
    /// this one.
    #[serde(skip)]
    pub peers: BTreeSet<Gid>,
    #[serde(skip)]
    window: Buddy,
}

fn slabs<S: Serializer>(places: &HashMap<SlabId, Place>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Placed {
        id: SlabId,
        base: u64,
    }
    serializer.collect_seq(places.iter().map(|(&id, place)| Placed { id, base: place.base() }))
}

impl Session {
    pub fn new(devid: u64, sink: Arc<EventSink>, window_size: u64) -> Self {
        let window = Buddy::new((window_size / WINDOW_UNIT) as u32);
        Self {
            devid,
            sink,
            dmbs: 0,
            grants: 0,
            places: HashMap::new(),
            stale: Vec::new(),
            peers: BTreeSet::new(),
            window,
        }
    }

    /// Returns the base of a slab in the window; allocates a place on first use.
    pub fn place(&mut self, id: SlabId, len: u64, max_maps: u32) -> Option<u64> {
        // Attached again before it was unmapped.
        self.stale.retain(|stale| *stale != id);
        if let Some(place) = self.places.get(&id) {
            return Some(place.base());
        }
        if self.places.len() >= max_maps as usize {
            return None;
        }
        let order = Buddy::order_for(u32::try_from(len.div_ceil(WINDOW_UNIT)).ok()?);
        let place = Place {
            unit: self.window.alloc(order)?,
            order,
        };
        self.places.insert(id, place);
        Some(place.base())
    }

    /// Marks a slab for removal from the window.
    pub fn mark_stale(&mut self, id: SlabId) {
        if self.places.contains_key(&id) && !self.stale.contains(&id) {
            self.stale.push(id);
        }
    }

    /// Frees the place of a slab that has been unmapped.
    pub fn vacate(&mut self, id: SlabId) {
        self.stale.retain(|stale| *stale != id);
        if let Some(place) = self.places.remove(&id) {
            self.window.free(place.unit, place.order);
        }
    }
}
