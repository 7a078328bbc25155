//! A guest's RAM, and the allocator of its blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// Guest address of the first byte.
pub const BASE: u64 = 0x1_4000_0000;
/// Bytes of RAM; untouched pages take no memory of the host.
pub const SIZE: u64 = 256 << 20;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// A guest's RAM.
#[derive(Debug)]
pub struct Memory {
    file: File,
    mapping: MmapRegion,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Offset of the first byte that was never allocated.
    next: u64,
    /// Free blocks by length.
    blocks: BTreeMap<u64, Vec<u64>>,
    used: u64,
}

/// A block of RAM, aligned to its length and freed when dropped.
#[derive(Debug)]
pub struct Block {
    memory: Arc<Memory>,
    address: u64,
    length: u64,
}

impl Memory {
    /// Creates zeroed RAM.
    pub fn new() -> Arc<Self> {
        let file = File::from(rustix::fs::memfd_create("test-guest-ram", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(SIZE).unwrap();
        let mapping = MmapRegion::from_file(FileOffset::new(file.try_clone().unwrap(), 0), SIZE as usize).unwrap();
        Arc::new(Self {
            file,
            mapping,
            free: Mutex::default(),
        })
    }

    /// The file behind the RAM, for a device to map: [`SIZE`] bytes from offset 0.
    pub fn file(&self) -> File {
        self.file.try_clone().unwrap()
    }

    /// Allocates a zeroed block of at least `length` bytes: the next power of two, and at least 8.
    pub fn allocate(self: &Arc<Self>, length: u64) -> Block {
        let length = length.max(8).next_power_of_two();
        let mut free = self.free.lock();
        let address = match free.blocks.get_mut(&length).and_then(Vec::pop) {
            Some(address) => address,
            None => {
                let start = free.next.next_multiple_of(length);
                free.next = start + length;
                assert!(free.next <= SIZE, "out of guest RAM");
                BASE + start
            }
        };
        free.used += length;
        drop(free);
        let block = Block {
            memory: Arc::clone(self),
            address,
            length,
        };
        block.write(0, &vec![0; length as usize]);
        block
    }

    /// Allocated bytes.
    pub fn used(&self) -> u64 {
        self.free.lock().used
    }

    /// Reads bytes at a guest address.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.at(address, data.len()).copy_to(data);
    }

    fn at(&self, address: u64, length: usize) -> VolatileSlice<'_> {
        self.mapping.get_slice((address - BASE) as usize, length).unwrap()
    }
}

impl Block {
    /// Guest address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Length in bytes, a power of two.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn slice(&self, offset: u64, length: usize) -> VolatileSlice<'_> {
        assert!(
            offset + length as u64 <= self.length,
            "access beyond the end of the block"
        );
        self.memory.at(self.address + offset, length)
    }

    /// Writes bytes.
    pub fn write(&self, offset: u64, data: &[u8]) {
        self.slice(offset, data.len()).copy_from(data);
    }

    /// Reads bytes.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.slice(offset, length).copy_to(&mut data[..]);
        data
    }

    /// Copies bytes to a block, of this guest or another.
    pub fn copy_to(&self, offset: u64, to: &Block, to_offset: u64, length: usize) {
        self.slice(offset, length)
            .copy_to_volatile_slice(to.slice(to_offset, length));
    }

    /// Writes a big-endian number with release order: the device sees it after everything written before.
    pub fn store(&self, offset: u64, value: u32) {
        self.slice(offset, 4)
            .store(value.to_be(), 0, Ordering::Release)
            .unwrap();
    }

    /// Reads a big-endian number with acquire order: later reads see what the device wrote before it.
    pub fn load(&self, offset: u64) -> u32 {
        u32::from_be(self.slice(offset, 4).load(0, Ordering::Acquire).unwrap())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = self.memory.free.lock();
        free.used -= self.length;
        free.blocks.entry(self.length).or_default().push(self.address);
    }
}
