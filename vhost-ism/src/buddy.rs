//! A buddy allocator over a range of equal units.
//!
//! It places DMBs in a slab and slabs in a guest's window. A block is a power of two units, aligned to its own size, so
//! no DMB crosses a boundary larger than itself. Free blocks merge as soon as both halves are free, and the lowest
//! address is allocated first, so that a window fills from its start. That policy is why this is not
//! `buddy_system_allocator`, which allocates the highest address first.
//!
//! Bound: rounding wastes less than half of a block. A request fails only when no aligned run of its size is free; with
//! live blocks all of one size, that happens only when every aligned run of that size is allocated.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

/// Allocator over `units` units, not necessarily a power of two. Serializes as the number of allocated units.
#[derive(Debug, Clone)]
pub struct Buddy {
    /// Free blocks by order: first unit of each.
    free: Vec<BTreeSet<u32>>,
    units: u32,
    used: u32,
}

impl Buddy {
    /// Creates an allocator with all of `units` units free.
    pub fn new(units: u32) -> Self {
        let orders = (u32::BITS - units.leading_zeros()) as usize;
        let mut free = vec![BTreeSet::new(); orders];
        // The largest aligned blocks that tile the range: with the range starting at 0, one per set bit.
        let mut start = 0;
        for order in (0..orders).rev() {
            if units & (1 << order) != 0 {
                free[order].insert(start);
                start += 1 << order;
            }
        }
        Self { free, units, used: 0 }
    }

    /// Returns the order of the smallest block that holds `units`.
    pub fn order_for(units: u32) -> u32 {
        u32::BITS - units.saturating_sub(1).leading_zeros()
    }

    /// Returns whether a block of `1 << order` units is free.
    pub fn fits(&self, order: u32) -> bool {
        self.free.iter().skip(order as usize).any(|blocks| !blocks.is_empty())
    }

    /// Allocates a block of `1 << order` units and returns its first unit.
    pub fn alloc(&mut self, order: u32) -> Option<u32> {
        let from = (order as usize..self.free.len()).find(|&o| !self.free[o].is_empty())?;
        let block = self.free[from].pop_first()?;
        // Free the upper halves on the way down.
        for o in (order as usize..from).rev() {
            self.free[o].insert(block + (1 << o));
        }
        self.used += 1 << order;
        Some(block)
    }

    /// Frees a block allocated with the same order.
    pub fn free(&mut self, mut block: u32, order: u32) {
        debug_assert!(block.is_multiple_of(1 << order) && block + (1 << order) <= self.units);
        self.used -= 1 << order;
        let mut o = order as usize;
        while o + 1 < self.free.len() {
            let buddy = block ^ (1 << o);
            if !self.free[o].remove(&buddy) {
                break;
            }
            block &= !(1 << o);
            o += 1;
        }
        self.free[o].insert(block);
    }

    /// Returns the number of units in allocated blocks.
    pub fn used(&self) -> u32 {
        self.used
    }
}

impl Serialize for Buddy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_from_the_start_and_aligns_blocks() {
        let mut b = Buddy::new(16);
        assert_eq!(b.alloc(0), Some(0));
        assert_eq!(b.alloc(2), Some(4));
        assert_eq!(b.alloc(0), Some(1));
        assert_eq!(b.alloc(3), Some(8));
        assert_eq!(b.alloc(2), None);
        assert_eq!(b.alloc(1), Some(2));
        assert_eq!(b.used(), 16);
    }

    #[test]
    fn a_range_that_is_no_power_of_two_is_used_whole() {
        let mut b = Buddy::new(127);
        let mut seen = BTreeSet::new();
        while let Some(unit) = b.alloc(0) {
            assert!(unit < 127 && seen.insert(unit));
        }
        assert_eq!(seen.len(), 127);
        for unit in seen {
            b.free(unit, 0);
        }
        assert_eq!(b.alloc(6), Some(0));
        assert_eq!(b.alloc(5), Some(64));
        assert_eq!(b.alloc(4), Some(96));
    }

    /// The stated bound: blocks of one size fail only when all are taken, in whatever order they were freed before.
    #[test]
    fn blocks_of_one_size_are_never_lost_to_fragmentation() {
        for order in 0..5 {
            let mut b = Buddy::new(64);
            let mut live: Vec<u32> = std::iter::from_fn(|| b.alloc(order)).collect();
            assert_eq!(live.len(), 64 >> order);
            // Free in a scattered order, then every block must be there again.
            for round in 0..50u32 {
                let at = (round as usize * 7 + 3) % live.len();
                b.free(live[at], order);
                live[at] = b.alloc(order).expect("a block was just freed");
            }
            while let Some(block) = live.pop() {
                b.free(block, order);
            }
            assert_eq!(b.used(), 0);
            assert_eq!(b.alloc(6), Some(0), "all halves merged again");
        }
    }

    #[test]
    fn random_programs_never_overlap() {
        let mut state = 0x1234_5678_9abc_def0_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut b = Buddy::new(255);
        let mut owner = vec![None; 255];
        let mut live: Vec<(u32, u32)> = Vec::new();
        for step in 0..20_000u32 {
            if next() % 3 != 0 {
                let order = (next() % 6) as u32;
                if let Some(block) = b.alloc(order) {
                    for unit in block..block + (1 << order) {
                        assert!(
                            owner[unit as usize].replace(step).is_none(),
                            "unit {unit} was given twice"
                        );
                    }
                    live.push((block, order));
                }
            } else if !live.is_empty() {
                let (block, order) = live.swap_remove(next() as usize % live.len());
                for unit in block..block + (1 << order) {
                    owner[unit as usize] = None;
                }
                b.free(block, order);
            }
        }
        assert_eq!(b.used() as usize, owner.iter().flatten().count());
    }
}
