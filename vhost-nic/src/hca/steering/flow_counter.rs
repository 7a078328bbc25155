//! Flow counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{MAX_COUNTERS, Result, SteeringError};
use crate::hca::memory_budget::{Budget, Charge};

/// Value of a flow counter: `traffic_counter` of `include/linux/mlx5/mlx5_ifc.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of frames.
    pub packets: u64,
    /// Number of bytes.
    pub octets: u64,
}

#[derive(Debug, Default)]
pub(super) struct FlowCounter {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl FlowCounter {
    pub fn count(&self, octets: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    fn read(&self, clear: bool) -> Traffic {
        let read = |counter: &AtomicU64| match clear {
            true => counter.swap(0, Ordering::Relaxed),
            false => counter.load(Ordering::Relaxed),
        };
        Traffic {
            packets: read(&self.packets),
            octets: read(&self.octets),
        }
    }
}

/// Flow counters of a function: bulks of those allocated together, by the id of the first.
#[derive(Debug)]
pub(super) struct FlowCounters {
    bulks: BTreeMap<u32, Vec<Arc<FlowCounter>>>,
    next: u32,
    count: usize,
    charge: Charge,
}

/// Bytes of a counter with its counts of references.
const COUNTER_BYTES: usize = size_of::<FlowCounter>() + 4 * size_of::<usize>();

impl FlowCounters {
    pub fn new(budget: &Arc<Budget>) -> Self {
        // To the driver, id 0 means none.
        Self {
            bulks: BTreeMap::new(),
            next: 1,
            count: 0,
            charge: Charge::none(budget),
        }
    }

    /// Removes all counters.
    pub fn clear(&mut self) {
        self.bulks.clear();
        (self.next, self.count) = (1, 0);
        self.settle();
    }

    /// Gives back what removed counters were charged.
    fn settle(&mut self) {
        // Shrinking is always possible.
        let _ = self.charge.resize((self.count * COUNTER_BYTES) as u64);
    }

    pub fn alloc(&mut self, count: u32) -> Result<u32> {
        let wanted = count.max(1) as usize;
        if self.count.saturating_add(wanted) > MAX_COUNTERS {
            return Err(SteeringError::Full);
        }
        let id = self.find_room(wanted as u32).ok_or(SteeringError::Full)?;
        self.charge.resize(((self.count + wanted) * COUNTER_BYTES) as u64)?;
        self.next = id + wanted as u32;
        self.count += wanted;
        self.bulks.insert(id, (0..wanted).map(|_| Arc::default()).collect());
        Ok(id)
    }

    /// Returns a free range of ids; freed ids are reused only after all others.
    fn find_room(&self, count: u32) -> Option<u32> {
        if self.next.checked_add(count).is_some() && self.bulks.range(self.next..).next().is_none() {
            return Some(self.next);
        }
        let mut id = 1u32;
        for (&start, bulk) in &self.bulks {
            if start.checked_sub(id).is_some_and(|room| room >= count) {
                return Some(id);
            }
            id = start.checked_add(bulk.len() as u32)?;
        }
        id.checked_add(count).map(|_| id)
    }

    pub fn dealloc(&mut self, id: u32) -> Result<()> {
        let bulk = self.bulks.get(&id).ok_or(SteeringError::NoCounter(id))?;
        if bulk.iter().any(|counter| Arc::strong_count(counter) > 1) {
            return Err(SteeringError::InUse);
        }
        self.count -= bulk.len();
        self.bulks.remove(&id);
        self.settle();
        Ok(())
    }

    pub fn get(&self, id: u32) -> Result<Arc<FlowCounter>> {
        self.find(id).cloned().ok_or(SteeringError::NoCounter(id))
    }

    fn find(&self, id: u32) -> Option<&Arc<FlowCounter>> {
        let (start, bulk) = self.bulks.range(..=id).next_back()?;
        bulk.get((id - start) as usize)
    }

    pub fn query(&self, id: u32, count: u32, clear: bool) -> Result<Vec<Traffic>> {
        let ids = (0..count.max(1)).map(|offset| id.checked_add(offset).ok_or(SteeringError::NoCounter(id)));
        // All or none: nothing is cleared if one is missing.
        let counters: Vec<_> = ids.map(|id| self.get(id?)).collect::<Result<_>>()?;
        Ok(counters.iter().map(|counter| counter.read(clear)).collect())
    }

    pub fn len(&self) -> usize {
        self.count
    }
}
