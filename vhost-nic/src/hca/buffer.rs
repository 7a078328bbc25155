//! Buffers of queues: contiguous for the device, scattered over pages of guest memory.

use std::sync::Arc;

use thiserror::Error;

use super::memory_budget::{Budget, Charge, OverBudget};
use crate::dma::{self, Dma, Purpose};

/// Log2 of the size in bytes of an adapter page, the unit of all page sizes (`MLX5_ADAPTER_PAGE_SHIFT`).
pub const ADAPTER_PAGE_SHIFT: u32 = 12;
/// Log2 of the units in a page in which a context gives the offset in the first page (`mlx5_ib/mem.c`).
const PAGE_OFFSET_SHIFT: u32 = 6;
/// Largest log2 of a page size in bytes; no guest has larger pages.
const MAX_PAGE_SHIFT: u32 = 40;

/// Reason why a page list makes no buffer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BufferError {
    /// Pages larger than memory.
    #[error("a page of 2^{0} bytes is too large")]
    PageSize(u32),
    /// Fewer pages than the buffer needs.
    #[error("the buffer needs {needed} pages, {given} given")]
    TooFewPages {
        /// Pages the buffer needs.
        needed: usize,
        /// Pages the guest gave.
        given: usize,
    },
    /// No host memory is left for the page list.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Buffer of a queue. Clones share the page list.
#[derive(Debug, Clone)]
pub struct Buffer {
    pages: Arc<[u64]>,
    _charge: Arc<Charge>,
    page_shift: u32,
    /// Offset of the buffer in the first page, in bytes.
    start: u64,
    length: u64,
}

impl Buffer {
    /// Creates a buffer of `length` bytes. `log_page_size` and `page_offset` are those of the context, `pas` is the
    /// page list as in the command; the one kept is charged to `budget`.
    pub fn new(
        log_page_size: u8,
        page_offset: u8,
        length: u64,
        pas: &[u8],
        budget: &Arc<Budget>,
    ) -> Result<Self, BufferError> {
        let page_shift = u32::from(log_page_size) + ADAPTER_PAGE_SHIFT;
        if page_shift > MAX_PAGE_SHIFT {
            return Err(BufferError::PageSize(page_shift));
        }
        let start = u64::from(page_offset) << (page_shift - PAGE_OFFSET_SHIFT);
        let needed = (start + length).div_ceil(1 << page_shift) as usize;
        let (given, _) = pas.as_chunks::<8>();
        let pages = given.get(..needed).ok_or(BufferError::TooFewPages {
            needed,
            given: given.len(),
        })?;
        let charge = budget.charge(size_of_val(pages) as u64)?;
        // The lowest bits are flags.
        let pages = pages.iter().map(|page| u64::from_be_bytes(*page) & !0xfff).collect();
        Ok(Self {
            pages,
            _charge: Arc::new(charge),
            page_shift,
            start,
            length,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Calls `act` with guest address and length of each contiguous segment of a range, in order. The range may wrap at
    /// the end of the buffer once; of a range longer than the buffer, no segment is visited.
    fn segments(
        &self,
        offset: u64,
        length: usize,
        mut act: impl FnMut(u64, usize) -> dma::Result<()>,
    ) -> dma::Result<()> {
        if length as u64 > self.length {
            return Err(dma::DmaError::Unmapped {
                address: offset,
                length: length as u64,
            });
        }
        let mut offset = offset % self.length.max(1);
        let mut rest = length;
        while rest > 0 {
            let at = self.start + offset;
            let in_page = at & ((1 << self.page_shift) - 1);
            let now = (rest as u64)
                .min((1 << self.page_shift) - in_page)
                .min(self.length - offset) as usize;
            act(self.pages[(at >> self.page_shift) as usize].wrapping_add(in_page), now)?;
            offset = (offset + now as u64) % self.length;
            rest -= now;
        }
        Ok(())
    }

    /// Reads from the buffer.
    pub fn read(&self, dma: &Dma, purpose: Purpose, offset: u64, data: &mut [u8]) -> dma::Result<()> {
        let mut done = 0;
        let length = data.len();
        self.segments(offset, length, |address, now| {
            dma.read(purpose, address, &mut data[done..done + now])?;
            done += now;
            Ok(())
        })
    }

    /// Writes to the buffer.
    pub fn write(&self, dma: &Dma, purpose: Purpose, offset: u64, data: &[u8]) -> dma::Result<()> {
        let mut done = 0;
        self.segments(offset, data.len(), |address, now| {
            dma.write(purpose, address, &data[done..done + now])?;
            done += now;
            Ok(())
        })
    }

    /// Writes an entry, its last four bytes last and in a single store, since they hold the owner bit. Entries do not
    /// cross pages.
    pub fn publish(&self, dma: &Dma, purpose: Purpose, offset: u64, entry: &[u8]) -> dma::Result<()> {
        let Some((body, last)) = entry.split_last_chunk::<4>() else {
            return Ok(());
        };
        self.write(dma, purpose, offset, body)?;
        self.segments(offset + body.len() as u64, last.len(), |address, _| {
            dma.store(purpose, address, u32::from_ne_bytes(*last))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pages: &[u64]) -> Vec<u8> {
        pages.iter().flat_map(|page| page.to_be_bytes()).collect()
    }

    fn addresses(buffer: &Buffer, offset: u64, length: usize) -> Vec<(u64, usize)> {
        let mut found = Vec::new();
        buffer
            .segments(offset, length, |address, length| {
                found.push((address, length));
                Ok(())
            })
            .unwrap();
        found
    }

    #[test]
    fn a_range_follows_the_pages_and_wraps() {
        let buffer = Buffer::new(0, 0, 0x2000, &list(&[0x5000, 0x9000]), &Arc::default()).unwrap();
        assert_eq!(addresses(&buffer, 0xff0, 0x20), [(0x5ff0, 0x10), (0x9000, 0x10)]);
        assert_eq!(addresses(&buffer, 0x1ff0, 0x20), [(0x9ff0, 0x10), (0x5000, 0x10)]);
    }

    #[test]
    fn the_offset_counts_in_parts_of_the_page() {
        // Pages of 16 KiB: one unit is 256 bytes.
        let buffer = Buffer::new(2, 3, 0x4000, &list(&[0x10000, 0x40000]), &Arc::default()).unwrap();
        assert_eq!(addresses(&buffer, 0, 4), [(0x10300, 4)]);
        assert_eq!(addresses(&buffer, 0x3d00, 4), [(0x40000, 4)]);
    }

    #[test]
    fn lists_that_are_too_short_are_refused() {
        assert_eq!(
            Buffer::new(0, 1, 0x1000, &list(&[0x5000]), &Arc::default()).unwrap_err(),
            BufferError::TooFewPages { needed: 2, given: 1 }
        );
        assert!(Buffer::new(31, 0, 64, &list(&[0]), &Arc::default()).is_err());
    }
}
