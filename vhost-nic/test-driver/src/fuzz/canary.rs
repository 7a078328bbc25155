//! Memory that no queue or key covers.

use std::sync::Arc;

use crate::memory::{Block, Memory};

/// Bytes of each part.
const LENGTH: u64 = 1 << 14;

/// Blocks of known contents between the memory of objects.
#[derive(Default)]
pub struct Canary(Vec<Block>);

impl Canary {
    /// Creates a set without blocks.
    pub fn new() -> Self {
        Self::default()
    }

    fn expected(part: usize) -> Vec<u8> {
        (0..LENGTH as usize)
            .map(|at| (at * 31 + at / 251 + part) as u8)
            .collect()
    }

    /// Allocates a block where the next object's memory would have been.
    pub fn add(&mut self, memory: &Arc<Memory>) {
        let block = memory.allocate(LENGTH);
        block.write(0, &Self::expected(self.0.len()));
        self.0.push(block);
    }

    /// Panics if a block has changed.
    pub fn check(&self) {
        for (part, block) in self.0.iter().enumerate() {
            assert!(
                block.read(0, LENGTH as usize) == Self::expected(part),
                "memory outside all buffers was written"
            );
        }
    }
}
