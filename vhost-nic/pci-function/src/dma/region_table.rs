//! The mapped regions of a guest, by address.

use std::sync::Arc;

use vhost_daemon::lost_memory::Loss;
use vm_memory::VolatileSlice;

use super::error::{DmaError, Result};
use super::mapping::{Mappings, MemoryFile};
use super::region::{Memory, Region};
use super::unmapped::Unmapped;

/// Maximum number of regions; VFIO's own limit (`dma_entry_limit` of vfio_iommu_type1).
pub const MAX_REGIONS: usize = 65_535;
/// Regions of a chunk, at most.
const CHUNK: usize = 512;

/// Regions by address, without overlap. Usually a handful, in one chunk; with a virtual IOMMU one per page, in chunks
/// so that an insertion moves few of them.
#[derive(Debug, Default)]
pub(super) struct RegionTable {
    /// None is empty.
    chunks: Vec<Vec<Region>>,
    count: usize,
    mappings: Mappings,
    unmapped: Unmapped,
}

/// Place of a region in the table.
#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: usize,
    at: usize,
}

impl RegionTable {
    /// Maps a range of guest addresses, in place of one that is the same.
    pub(super) fn map(
        &mut self,
        address: u64,
        length: u64,
        file: Option<MemoryFile>,
        max_bytes: u64,
        loss: &Arc<Loss>,
    ) -> Result<()> {
        let end = address.checked_add(length).filter(|end| *end > address);
        let end = end.ok_or(DmaError::Unmapped { address, length })?;
        let place = self.find(address);
        let old = self.get(place).filter(|region| region.address < end);
        let replaces = old.is_some();
        match old {
            Some(old) if (old.address, old.length) != (address, length) => {
                return Err(DmaError::Overlap { address, length });
            }
            None if self.count >= MAX_REGIONS => return Err(DmaError::Limit { address }),
            _ => {}
        }
        let memory = match file {
            Some(file) => {
                let size = usize::try_from(length).map_err(|error| DmaError::map(address, error))?;
                let mapped = self.mappings.map(&file, size, max_bytes, loss);
                let (mapping, offset) = mapped.map_err(|error| DmaError::map(address, error))?;
                Some(Memory {
                    mapping,
                    offset,
                    writable: file.is_writable(),
                })
            }
            None => None,
        };
        let region = Region::new(address, length, memory);
        if replaces {
            self.chunks[place.chunk][place.at] = region;
        } else {
            self.unmapped.forget(address..end);
            self.insert(region);
        }
        Ok(())
    }

    /// Removes a range of guest addresses.
    pub(super) fn unmap(&mut self, address: u64, length: u64) -> Result<()> {
        let end = address
            .checked_add(length)
            .ok_or(DmaError::Unmapped { address, length })?;
        if let Some(first) = self.get(self.find(address))
            && self.count >= MAX_REGIONS
            && first.address < address
            && end < first.end()
        {
            // One region would become two.
            return Err(DmaError::Limit { address });
        }
        loop {
            let place = self.find(address);
            if self.get(place).is_none_or(|region| region.address >= end) {
                return Ok(());
            }
            let old = self.take(place);
            self.unmapped.add(old.address.max(address)..old.end().min(end));
            if old.address < address {
                self.insert(old.part(old.address, address));
            }
            if end < old.end() {
                self.insert(old.part(end, old.end()));
            }
        }
    }

    /// Removes all regions.
    pub(super) fn clear(&mut self) {
        for region in self.chunks.drain(..).flatten() {
            self.unmapped.add(region.address..region.end());
        }
        self.count = 0;
    }

    /// Returns the region that an address is in.
    #[inline]
    pub(super) fn at(&self, address: u64) -> Option<&Region> {
        // Most of what is accessed is in the RAM at the lowest addresses.
        let lowest = self.chunks.first().and_then(|chunk| chunk.first());
        lowest
            .filter(|region| region.contains(address))
            .or_else(|| self.get(self.find(address)).filter(|region| region.contains(address)))
    }

    /// Returns the bytes of a range, in order: a slice for each region that it touches.
    pub(super) fn slices(&self, address: u64, length: usize, write: bool) -> Result<Vec<VolatileSlice<'_>>> {
        let unmapped = || self.missing(address, length as u64);
        let end = address.checked_add(length as u64).ok_or_else(unmapped)?;
        let mut slices = Vec::new();
        let mut from = address;
        while from < end {
            let region = self.at(from).ok_or_else(unmapped)?;
            let to = region.end().min(end);
            slices.push(region.slice(from, (to - from) as usize, write)?);
            from = to;
        }
        Ok(slices)
    }

    /// Returns the error of an access to a range that is not mapped as a whole.
    #[cold]
    fn missing(&self, address: u64, length: u64) -> DmaError {
        let range = address..address.saturating_add(length);
        match self.unmapped.touches(&range) {
            true => DmaError::AfterUnmap { address, length },
            false => DmaError::Unmapped { address, length },
        }
    }

    /// Place of the first region that ends behind `address`, or the end of the last chunk.
    #[inline]
    fn find(&self, address: u64) -> Place {
        let is_before = |region: &Region| region.end() <= address;
        let last = self.chunks.len().saturating_sub(1);
        let behind = |chunk: &Vec<Region>| chunk.last().is_some_and(is_before);
        let chunk = self.chunks.partition_point(behind).min(last);
        let at = self
            .chunks
            .get(chunk)
            .map_or(0, |chunk| chunk.partition_point(is_before));
        Place { chunk, at }
    }

    #[inline]
    fn get(&self, place: Place) -> Option<&Region> {
        self.chunks.get(place.chunk)?.get(place.at)
    }

    /// Inserts a region that overlaps none.
    fn insert(&mut self, region: Region) {
        let place = self.find(region.address);
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
        }
        let chunk = &mut self.chunks[place.chunk];
        chunk.insert(place.at, region);
        if chunk.len() > CHUNK {
            let half = chunk.split_off(CHUNK / 2);
            self.chunks.insert(place.chunk + 1, half);
        }
        self.count += 1;
    }

    /// Removes the region at a place where there is one.
    fn take(&mut self, place: Place) -> Region {
        let region = self.chunks[place.chunk].remove(place.at);
        if self.chunks[place.chunk].is_empty() {
            self.chunks.remove(place.chunk);
        }
        self.count -= 1;
        region
    }
}
