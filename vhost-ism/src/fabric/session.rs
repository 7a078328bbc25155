//! A session in the fabric: its window, and the number of DMBs it holds.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::placement::Part;
use crate::abi::Gid;
use crate::buddy::Buddy;
use crate::event::EventSink;
use crate::slab::SlabId;

/// Alignment of slabs in a window: Linux describes device memory in units of 2 MiB (memory subsections), and a driver
/// that wants compound pages of that size must not find two slabs in one.
pub const WINDOW_UNIT: u64 = 2 << 20;

/// A block of 2^`order` units of a window.
#[derive(Debug, Clone, Copy)]
struct WindowBlock {
    unit: u32,
    order: u32,
}

/// Location of a slab in a window: the blocks of its parts, in the order of the slab.
#[derive(Debug, Clone)]
pub struct Place(Vec<WindowBlock>);

impl Place {
    /// Returns the offset of the first part in the window in bytes.
    pub fn base(&self) -> u64 {
        self.0.first().map_or(0, |block| u64::from(block.unit) * WINDOW_UNIT)
    }

    /// Returns the parts.
    pub fn parts(&self) -> Vec<Part> {
        let mut from = 0;
        let part = |block: &WindowBlock| {
            let len = WINDOW_UNIT << block.order;
            from += len;
            Part {
                base: u64::from(block.unit) * WINDOW_UNIT,
                from: from - len,
                len,
            }
        };
        self.0.iter().map(part).collect()
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

    /// Returns the parts of a slab of `len` bytes in the window; allocates a place on first use, for the whole, or if
    /// there is a largest part, for as few as there is room for.
    pub fn place(&mut self, id: SlabId, len: u64, max_part: Option<u64>, max_maps: u32) -> Option<Vec<Part>> {
        // Attached again before it was unmapped.
        self.stale.retain(|stale| *stale != id);
        if let Some(place) = self.places.get(&id) {
            return Some(place.parts());
        }
        let maps: usize = self.places.values().map(|place| place.0.len()).sum();
        let blocks = self.allocate(len, max_part, (max_maps as usize).saturating_sub(maps))?;
        let place = Place(blocks);
        let parts = place.parts();
        self.places.insert(id, place);
        Some(parts)
    }

    fn allocate(&mut self, len: u64, max_part: Option<u64>, max_blocks: usize) -> Option<Vec<WindowBlock>> {
        let mut rest = u32::try_from(len.div_ceil(WINDOW_UNIT)).ok()?.next_power_of_two();
        let mut order = Buddy::order_for(rest);
        if let Some(max_part) = max_part {
            order = order.min((max_part / WINDOW_UNIT).max(1).ilog2());
        }
        let mut blocks = Vec::new();
        while rest > 0 {
            let unit = (blocks.len() < max_blocks).then(|| self.window.alloc(order)).flatten();
            match unit {
                Some(unit) => {
                    blocks.push(WindowBlock { unit, order });
                    rest -= 1 << order;
                }
                // The rest stays a multiple of the block.
                None if max_part.is_some() && order > 0 && blocks.len() < max_blocks => order -= 1,
                None => {
                    self.free(&blocks);
                    return None;
                }
            }
        }
        Some(blocks)
    }

    fn free(&mut self, blocks: &[WindowBlock]) {
        for block in blocks {
            self.window.free(block.unit, block.order);
        }
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
            self.free(&place.0);
        }
    }
}
