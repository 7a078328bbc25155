//! Guest memory whose mappings stay in place during a sequence of accesses.

use std::fmt;

use parking_lot::RwLockReadGuard;
use smallvec::SmallVec;

use super::door::Passage;
use super::error::{DmaError, Result};
use super::region_table::{Place, RegionTable};
use super::stats::Tally;

/// Read guard on the mappings of guest memory, for accesses of one purpose ([`Dma::hold`](crate::dma::Dma::hold)).
pub struct Held<'a> {
    regions: RwLockReadGuard<'a, RegionTable>,
    tally: Tally<'a>,
    /// Place of the region accessed last: the next access is most often in the same one.
    near: Place,
    passage: Option<Passage<'a>>,
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("regions", &self.regions)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl<'a> Held<'a> {
    #[inline]
    pub(super) fn new(
        regions: RwLockReadGuard<'a, RegionTable>,
        tally: Tally<'a>,
        passage: Option<Passage<'a>>,
    ) -> Self {
        Self {
            regions,
            tally,
            near: Place::default(),
            passage,
        }
    }

    /// Writes all of `data`.
    #[inline]
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<()> {
        let (regions, near) = (&self.regions, &mut self.near);
        let result = match &self.passage {
            None => regions.write(near, address, data),
            Some(passage) => passage.write(address, data, &mut || regions.write(near, address, data)),
        };
        self.tally.count(data.len(), result.is_ok());
        result
    }

    /// Copies `length` bytes from `source_address` of another guest's memory, or of the same, to `address`: the payload
    /// of a message between guests is copied once. An error of the source is a [`DmaError::Source`].
    #[inline]
    pub fn copy_from(&mut self, address: u64, source: &mut Held<'_>, source_address: u64, length: usize) -> Result<()> {
        if self.passage.is_some() || source.passage.is_some() {
            return self.copy_through(address, source, source_address, length);
        }
        self.copy_memory(address, source, source_address, length)
    }

    #[inline]
    fn copy_memory(&mut self, address: u64, source: &mut Held<'_>, source_address: u64, length: usize) -> Result<()> {
        let to = self.regions.whole(&mut self.near, address, length, true);
        let from = source.regions.whole(&mut source.near, source_address, length, false);
        if let (Some(to), Some(from)) = (to, from) {
            from.copy_to_volatile_slice(to);
            self.tally.count(length, true);
            source.tally.count(length, true);
            return Ok(());
        }
        self.copy_parts(address, source, source_address, length)
    }

    /// Copies from or to a range that crosses regions.
    #[cold]
    fn copy_parts(&mut self, address: u64, source: &mut Held<'_>, source_address: u64, length: usize) -> Result<()> {
        let mut targets = SmallVec::<[_; 2]>::new();
        let result = self
            .regions
            .visit(&mut self.near, address, length, true, |slice| targets.push(slice));
        self.tally.count(length, result.is_ok());
        result?;
        let mut targets = targets.into_iter();
        let mut target = targets.next();
        let result = source
            .regions
            .visit(&mut source.near, source_address, length, false, |mut slice| {
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

    /// Copies through the doors of either side.
    #[cold]
    fn copy_through(&mut self, address: u64, source: &mut Held<'_>, source_address: u64, length: usize) -> Result<()> {
        let has_tape = |passage: &Option<Passage<'_>>| passage.as_ref().is_some_and(Passage::has_tape);
        if has_tape(&self.passage) || has_tape(&source.passage) {
            // Through a buffer, so that the bytes are seen.
            let mut bytes = vec![0; length];
            source.read(source_address, &mut bytes).map_err(of_source)?;
            return self.write(address, &bytes);
        }
        self.enter(address, length, true)?;
        source.enter(source_address, length, false).map_err(of_source)?;
        self.copy_memory(address, source, source_address, length)
    }

    /// Passes the door; counts an access that it fails.
    fn enter(&mut self, address: u64, length: usize, write: bool) -> Result<()> {
        let Some(passage) = &self.passage else { return Ok(()) };
        passage
            .enter(address, length, write)
            .inspect_err(|_| self.tally.count(length, false))
    }

    fn read(&mut self, address: u64, data: &mut [u8]) -> Result<()> {
        let (regions, near, length) = (&self.regions, &mut self.near, data.len());
        let result = match &self.passage {
            None => regions.read(near, address, data),
            Some(passage) => passage.read(address, data, &mut |data| regions.read(near, address, data)),
        };
        self.tally.count(length, result.is_ok());
        result
    }
}

fn of_source(error: DmaError) -> DmaError {
    DmaError::Source(Box::new(error))
}
