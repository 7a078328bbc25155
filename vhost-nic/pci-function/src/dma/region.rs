//! Mapped regions of guest memory.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::error::{DmaError, Result};
use super::unmapped::Unmapped;

/// File behind a range of guest addresses.
#[derive(Debug)]
pub struct Backing {
    /// File that holds the memory.
    pub file: File,
    /// Offset of the range in the file, in bytes.
    pub offset: u64,
    /// Whether the device may write.
    pub writable: bool,
}

/// A range of guest addresses.
#[derive(Debug, Clone)]
pub(super) struct Region {
    address: u64,
    /// Length in bytes; at least 1, and `address + length` does not overflow.
    length: u64,
    memory: Option<Memory>,
}

/// The host's view of a region. The halves of a region that was split share the mapping.
#[derive(Debug, Clone)]
struct Memory {
    mapping: Arc<MmapRegion>,
    /// Offset of the region in the mapping, in bytes.
    offset: usize,
    writable: bool,
}

impl Region {
    pub(super) fn new(address: u64, length: u64, backing: Option<Backing>) -> Result<Self> {
        if length == 0 || address.checked_add(length).is_none() {
            return Err(DmaError::Unmapped { address, length });
        }
        let memory = backing
            .map(|backing| Memory::new(address, length, backing))
            .transpose()?;
        Ok(Self {
            address,
            length,
            memory,
        })
    }

    #[inline]
    fn end(&self) -> u64 {
        self.address + self.length
    }

    /// The part from `from` to `to`, both of which must be inside.
    fn part(&self, from: u64, to: u64) -> Self {
        let mut memory = self.memory.clone();
        if let Some(memory) = &mut memory {
            memory.offset += (from - self.address) as usize;
        }
        Self {
            address: from,
            length: to - from,
            memory,
        }
    }

    #[inline]
    fn slice(&self, address: u64, length: usize, write: bool) -> Result<VolatileSlice<'_>> {
        let memory = self.memory.as_ref().ok_or(DmaError::Unreachable { address })?;
        if write && !memory.writable {
            return Err(DmaError::ReadOnly { address });
        }
        let offset = memory.offset + (address - self.address) as usize;
        memory
            .mapping
            .get_slice(offset, length)
            .map_err(|_| DmaError::Unmapped {
                address,
                length: length as u64,
            })
    }
}

impl Memory {
    fn new(address: u64, length: u64, backing: Backing) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| DmaError::Map { address, source };
        let size = usize::try_from(length).map_err(|error| failed(error.into()))?;
        // An access past the end of the file would raise SIGBUS.
        let file_length = backing.file.metadata().map_err(|error| failed(error.into()))?.len();
        if backing.offset.checked_add(length).is_none_or(|end| end > file_length) {
            return Err(failed("the file is too short".into()));
        }
        let protection = if backing.writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        let mapping = MmapRegion::build(
            Some(FileOffset::new(backing.file, backing.offset)),
            size,
            protection,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        )
        .map_err(|error| failed(error.into()))?;
        Ok(Self {
            mapping: Arc::new(mapping),
            offset: 0,
            writable: backing.writable,
        })
    }
}

/// Regions by address, without overlap. A handful: searching is cheap, and changes are rare.
#[derive(Debug, Default)]
pub(super) struct Regions {
    regions: Vec<Region>,
    unmapped: Unmapped,
}

impl Regions {
    pub(super) fn insert(&mut self, region: Region) -> Result<()> {
        let hit = self.overlapping(region.address, region.end());
        match self.regions.get_mut(hit.clone()) {
            Some([]) => {
                self.unmapped.forget(region.address..region.end());
                self.regions.insert(hit.start, region);
            }
            Some([same]) if (same.address, same.length) == (region.address, region.length) => *same = region,
            _ => {
                return Err(DmaError::Overlap {
                    address: region.address,
                    length: region.length,
                });
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, address: u64, length: u64) -> Result<()> {
        let end = address
            .checked_add(length)
            .ok_or(DmaError::Unmapped { address, length })?;
        let hit = self.overlapping(address, end);
        let mut rests = Vec::new();
        for old in self.regions.get(hit.clone()).unwrap_or_default() {
            if old.address < address {
                rests.push(old.part(old.address, address));
            }
            if end < old.end() {
                rests.push(old.part(end, old.end()));
            }
            self.unmapped.add(old.address.max(address)..old.end().min(end));
        }
        self.regions.splice(hit, rests);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        for region in self.regions.drain(..) {
            self.unmapped.add(region.address..region.end());
        }
    }

    /// Returns the range if it is within one reachable region. `near` is the index of the region to try first, and
    /// becomes that of the region found.
    #[inline]
    pub(super) fn whole(
        &self,
        near: &mut usize,
        address: u64,
        length: usize,
        write: bool,
    ) -> Option<VolatileSlice<'_>> {
        let end = address.checked_add(length as u64)?;
        let contains = |region: &Region| region.address <= address && end <= region.end();
        if !self.regions.get(*near).is_some_and(contains) {
            *near = self.index(address);
        }
        let region = self.regions.get(*near).filter(|region| contains(region))?;
        region.slice(address, length, write).ok()
    }

    /// Calls `act` once per region that the range touches, in order; never if any byte of it is out of reach.
    #[inline]
    pub(super) fn visit<'a>(
        &'a self,
        address: u64,
        length: usize,
        write: bool,
        mut act: impl FnMut(VolatileSlice<'a>),
    ) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        if let Some(slice) = self.whole(&mut 0, address, length, write) {
            act(slice);
            return Ok(());
        }
        self.slices(address, length, write)?.into_iter().for_each(act);
        Ok(())
    }

    /// Returns the parts of a range that crosses regions, in order.
    fn slices(&self, address: u64, length: usize, write: bool) -> Result<Vec<VolatileSlice<'_>>> {
        let unmapped = || self.missing(address, length as u64);
        let end = address.checked_add(length as u64).ok_or_else(unmapped)?;
        let mut slices = Vec::new();
        let mut from = address;
        while from < end {
            let region = self
                .regions
                .get(self.index(from))
                .filter(|region| region.address <= from);
            let region = region.ok_or_else(unmapped)?;
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

    /// Index of the first region that ends behind `address`.
    #[inline]
    fn index(&self, address: u64) -> usize {
        self.regions.partition_point(|region| region.end() <= address)
    }

    fn overlapping(&self, address: u64, end: u64) -> Range<usize> {
        let first = self.index(address);
        let count = self.regions[first..].partition_point(|region| region.address < end);
        first..first + count
    }
}
