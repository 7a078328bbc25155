//! Guest memory whose mappings stay in place during a sequence of accesses.

use std::fmt;

use parking_lot::RwLockReadGuard;
use smallvec::SmallVec;

use super::door::{MemoryDoor, MemoryTape};
use super::error::{DmaError, Result};
use super::region_table::{Place, RegionTable};
use super::stats::Tally;

/// Read guard on the mappings of guest memory, for accesses of one purpose ([`Dma::hold`](crate::dma::Dma::hold)).
pub struct Held<'a> {
    regions: RwLockReadGuard<'a, RegionTable>,
    tally: Tally<'a>,
    /// Place of the region accessed last: the next access is most often in the same one.
    near: Place,
    door: Option<HeldDoor<'a>>,
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("regions", &self.regions)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

/// The door of the memory, and the purpose of the accesses.
pub(super) struct HeldDoor<'a> {
    pub(super) door: &'a dyn MemoryDoor,
    pub(super) purpose: &'static str,
}

impl<'a> Held<'a> {
    #[inline]
    pub(super) fn new(regions: RwLockReadGuard<'a, RegionTable>, tally: Tally<'a>, door: Option<HeldDoor<'a>>) -> Self {
        Self {
            regions,
            tally,
            near: Place::default(),
            door,
        }
    }

    /// Passes the door; counts an access that it fails.
    #[inline]
    fn enter(&mut self, address: u64, length: usize, write: bool) -> Result<()> {
        match &self.door {
            Some(HeldDoor { door, purpose }) if !door.access(purpose, write) => {
                self.tally.count(length, false);
                Err(DmaError::Unmapped {
                    address,
                    length: length as u64,
                })
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn tape(&self) -> Option<&'a dyn MemoryTape> {
        self.door.as_ref().and_then(|HeldDoor { door, .. }| door.tape())
    }

    /// Writes all of `data`.
    #[inline]
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<()> {
        match self.tape() {
            None => self.write_memory(address, data),
            Some(tape) => tape.write(address, data, &mut || self.write_memory(address, data)),
        }
    }

    #[inline]
    fn write_memory(&mut self, address: u64, data: &[u8]) -> Result<()> {
        self.enter(address, data.len(), true)?;
        let mut rest = data;
        let result = self.regions.visit(address, data.len(), true, |slice| {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        });
        self.tally.count(data.len(), result.is_ok());
        result
    }

    fn read(&mut self, address: u64, data: &mut [u8]) -> Result<()> {
        match self.tape() {
            None => self.read_memory(address, data),
            Some(tape) => tape.read(address, data, &mut |data| self.read_memory(address, data)),
        }
    }

    fn read_memory(&mut self, address: u64, data: &mut [u8]) -> Result<()> {
        let length = data.len();
        self.enter(address, length, false)?;
        let mut rest = data;
        let result = self.regions.visit(address, length, false, |slice| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        });
        self.tally.count(length, result.is_ok());
        result
    }

    /// Copies `length` bytes from `source_address` of another guest's memory, or of the same, to `address`: the payload
    /// of a message between guests is copied once. An error of the source is a [`DmaError::Source`].
    #[inline]
    pub fn copy_from(&mut self, address: u64, source: &mut Held<'_>, source_address: u64, length: usize) -> Result<()> {
        if self.tape().is_some() || source.tape().is_some() {
            return self.copy_by_tape(address, source, source_address, length);
        }
        self.enter(address, length, true)?;
        source.enter(source_address, length, false).map_err(of_source)?;
        let to = self.regions.whole(&mut self.near, address, length, true);
        let from = source.regions.whole(&mut source.near, source_address, length, false);
        if let (Some(to), Some(from)) = (to, from) {
            from.copy_to_volatile_slice(to);
            self.tally.count(length, true);
            source.tally.count(length, true);
            return Ok(());
        }
        let mut targets = SmallVec::<[_; 2]>::new();
        let result = self.regions.visit(address, length, true, |slice| targets.push(slice));
        self.tally.count(length, result.is_ok());
        result?;
        let mut targets = targets.into_iter();
        let mut target = targets.next();
        let result = source.regions.visit(source_address, length, false, |mut slice| {
            while let Some(to) = target {
                let now = slice.len().min(to.len());
                let (Ok(part), Ok(to_part)) = (slice.subslice(0, now), to.subslice(0, now)) else {
                    return;
                };
                part.copy_to_volatile_slice(to_part);
                target = to
                    .offset(now)
                    .ok()
                    .filter(|rest| !rest.is_empty())
                    .or_else(|| targets.next());
                match slice.offset(now) {
                    Ok(rest) if !rest.is_empty() => slice = rest,
                    _ => return,
                }
            }
        });
        source.tally.count(length, result.is_ok());
        result.map_err(of_source)
    }

    /// Copies through a buffer, so that the bytes are seen.
    #[cold]
    fn copy_by_tape(&mut self, address: u64, source: &mut Held<'_>, source_address: u64, length: usize) -> Result<()> {
        let mut bytes = vec![0; length];
        source.read(source_address, &mut bytes).map_err(of_source)?;
        self.write(address, &bytes)
    }
}

fn of_source(error: DmaError) -> DmaError {
    DmaError::Source(Box::new(error))
}
