//! Queue buffers, in pages that are not contiguous.

use std::sync::Arc;

use crate::memory::{Block, Memory, PAGE};

/// A buffer of discontiguous pages, accessed by offset. Accesses wrap around at its end.
#[derive(Debug)]
pub struct Buffer {
    pages: Vec<Block>,
    page: u64,
    /// Offset in the first page.
    start: u64,
    length: u64,
}

impl Buffer {
    /// Allocates a zeroed buffer in pages of 4 KiB.
    pub fn new(memory: &Arc<Memory>, length: u64) -> Self {
        Self::in_pages(memory, length, PAGE, 0)
    }

    /// Allocates a zeroed buffer in pages of `page` bytes, starting at byte `start` of the first one.
    pub fn in_pages(memory: &Arc<Memory>, length: u64, page: u64, start: u64) -> Self {
        let mut pages: Vec<Block> = (0..(start + length).div_ceil(page))
            .map(|_| memory.allocate(page))
            .collect();
        pages.reverse();
        Self {
            pages,
            page,
            start,
            length,
        }
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Page addresses as commands that create queues have them (`pas`).
    pub fn page_list(&self) -> Vec<u8> {
        self.pages
            .iter()
            .flat_map(|page| page.address().to_be_bytes())
            .collect()
    }

    /// Guest addresses of the pages.
    pub fn addresses(&self) -> Vec<u64> {
        self.pages.iter().map(Block::address).collect()
    }

    /// Writes bytes.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (page, within, room) = self.place(offset + done as u64);
            let now = room.min(data.len() - done);
            page.write(within, &data[done..done + now]);
            done += now;
        }
    }

    /// Reads bytes.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(length);
        while data.len() < length {
            let (page, within, room) = self.place(offset + data.len() as u64);
            data.extend(page.read(within, room.min(length - data.len())));
        }
        data
    }

    /// Copies bytes to the same offset of another buffer.
    pub fn copy_to(&self, to: &Self, offset: u64, length: u64) {
        let mut done = 0;
        while done < length {
            let (page, within, room) = self.place(offset + done);
            let (target, target_within, target_room) = to.place(offset + done);
            let now = room.min(target_room).min((length - done) as usize);
            page.copy_to(within, target, target_within, now);
            done += now as u64;
        }
    }

    /// Reads a big-endian number with acquire order: later reads see what the device wrote before it.
    pub fn load(&self, offset: u64) -> u32 {
        let (page, within, _) = self.place(offset);
        page.load(within)
    }

    /// The page of an offset, the offset in it, and the number of contiguous bytes from there.
    fn place(&self, offset: u64) -> (&Block, u64, usize) {
        let offset = offset % self.length;
        let at = self.start + offset;
        let within = at % self.page;
        (
            &self.pages[(at / self.page) as usize],
            within,
            (self.page - within).min(self.length - offset) as usize,
        )
    }
}
