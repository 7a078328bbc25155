//! A slab: one sealed memfd, shared by a fixed set of guests, and the DMBs placed in it.
//!
//! A guest sees the whole of a memfd that is mapped into it, so a slab is only ever mapped by the guests it was created
//! for. Freed blocks are zeroed by punching a hole, which also returns the memory. This process maps the slabs of copy
//! mode only ([`SlabView`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};

use serde::Serialize;

use crate::abi::CHUNK_SIZE;
use crate::buddy::Buddy;
use crate::slab_view::SlabView;

/// Identifier of a slab, unique for the life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SlabId(pub u64);

/// The memory of a slab, as the guests' VMMs map it.
#[derive(Debug, Clone, Serialize)]
pub struct SlabMemory {
    /// Slab that the memory belongs to.
    #[serde(skip)]
    pub id: SlabId,
    /// Sealed against growing and shrinking, so that no process can make a mapping of it fault.
    #[serde(skip)]
    pub memfd: Arc<OwnedFd>,
    /// Length in bytes.
    pub len: u64,
}

/// A block of 2^`order` chunks in a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    chunk: u32,
    order: u32,
}

impl Block {
    /// Returns the offset in the slab in bytes.
    pub fn offset(self) -> u64 {
        u64::from(self.chunk) * CHUNK_SIZE
    }

    /// Returns the length in bytes.
    pub fn bytes(self) -> u64 {
        CHUNK_SIZE << self.order
    }
}

/// A slab's memory and the allocation of its blocks.
#[derive(Debug, Serialize)]
pub struct Slab {
    #[serde(flatten)]
    memory: SlabMemory,
    #[serde(rename = "used_chunks")]
    blocks: Buddy,
    #[serde(skip)]
    view: Option<Arc<SlabView>>,
}

impl Slab {
    /// Creates a zeroed slab of `len` bytes, a multiple of the chunk size.
    pub fn new(id: SlabId, len: u64) -> io::Result<Self> {
        Ok(Self {
            memory: SlabMemory {
                id,
                memfd: Arc::new(sealed_memfd("vhost-ism-slab", len)?),
                len,
            },
            blocks: Buddy::new((len / CHUNK_SIZE) as u32),
            view: None,
        })
    }

    /// Creates a slab as [`Slab::new`] does, and maps it into this process.
    pub fn with_view(id: SlabId, len: u64) -> io::Result<Self> {
        let mut slab = Self::new(id, len)?;
        slab.view = Some(Arc::new(SlabView::new(slab.memory.memfd.as_fd(), len)?));
        Ok(slab)
    }

    /// Returns this process' mapping, if the slab has one.
    pub fn view(&self) -> Option<&Arc<SlabView>> {
        self.view.as_ref()
    }

    /// Returns the memory to map.
    pub fn memory(&self) -> &SlabMemory {
        &self.memory
    }

    fn order_for(size: u64) -> Option<u32> {
        Some(Buddy::order_for(u32::try_from(size.div_ceil(CHUNK_SIZE)).ok()?))
    }

    /// Returns whether a block of at least `size` bytes is free.
    pub fn fits(&self, size: u64) -> bool {
        Self::order_for(size).is_some_and(|order| self.blocks.fits(order))
    }

    /// Allocates a block of at least `size` bytes.
    pub fn alloc(&mut self, size: u64) -> Option<Block> {
        let order = Self::order_for(size)?;
        Some(Block {
            chunk: self.blocks.alloc(order)?,
            order,
        })
    }

    /// Zeroes and frees a block. A block that the host cannot zero is lost instead of reused.
    pub fn free(&mut self, block: Block) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&*self.memory.memfd, flags, block.offset(), block.bytes())?;
        self.blocks.free(block.chunk, block.order);
        Ok(())
    }

    /// Returns the number of bytes in allocated blocks.
    pub fn used(&self) -> u64 {
        u64::from(self.blocks.used()) * CHUNK_SIZE
    }
}

/// Creates a memfd of `len` zero bytes, sealed against growing and shrinking.
pub fn sized_memfd(name: &str, len: u64) -> io::Result<OwnedFd> {
    let memfd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memfd, len)?;
    fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(memfd)
}

/// Creates a memfd as [`sized_memfd`] does, and seals it against further seals.
pub fn sealed_memfd(name: &str, len: u64) -> io::Result<OwnedFd> {
    let memfd = sized_memfd(name, len)?;
    fcntl_add_seals(&memfd, SealFlags::SEAL)?;
    Ok(memfd)
}

/// Seals a memfd against writing, for good, unless a process has mapped it for writing. Returns whether it is sealed
/// now.
pub fn seal_against_writing(memfd: impl AsFd) -> bool {
    fcntl_add_seals(memfd, SealFlags::WRITE).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{pread, pwrite};

    #[test]
    fn a_reused_block_reads_zero() {
        let mut slab = Slab::new(SlabId(1), 1 << 20).unwrap();
        let block = slab.alloc(20_000).unwrap();
        assert_eq!(block.bytes(), 32 << 10);
        let memfd = slab.memory().memfd.clone();
        pwrite(&*memfd, &vec![0xa5; block.bytes() as usize], block.offset()).unwrap();
        slab.free(block).unwrap();
        assert_eq!(slab.used(), 0);
        let again = slab.alloc(20_000).unwrap();
        assert_eq!(again, block);
        let mut bytes = vec![1; again.bytes() as usize];
        assert_eq!(pread(&*memfd, &mut bytes, again.offset()).unwrap(), bytes.len());
        assert!(bytes.iter().all(|&b| b == 0));
    }

    #[test]
    fn the_memfd_cannot_change_its_size() {
        let slab = Slab::new(SlabId(1), 1 << 20).unwrap();
        assert!(ftruncate(&*slab.memory().memfd, 4096).is_err());
        assert!(ftruncate(&*slab.memory().memfd, 2 << 20).is_err());
    }

    #[test]
    fn a_full_slab_says_so() {
        let mut slab = Slab::new(SlabId(1), 64 << 10).unwrap();
        assert!(slab.alloc(64 << 10).is_some());
        assert!(slab.alloc(1).is_none());
        assert!(slab.alloc(u64::MAX).is_none());
    }
}
