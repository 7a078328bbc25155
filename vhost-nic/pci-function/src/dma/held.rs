//! Guest memory whose mappings stay in place during a sequence of accesses.

use std::fmt;

use vm_memory::VolatileSlice;

use super::door::Passage;
use super::error::{DmaError, Result};
use super::reach::Reach;
use super::stats::Tally;

/// Read guard on the mappings of guest memory, for accesses of one purpose ([`Dma::hold`](crate::dma::Dma::hold)).
pub struct Held<'a> {
    reach: Reach<'a>,
    tally: Tally<'a>,
    passage: Option<Passage<'a>>,
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("reach", &self.reach)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl<'a> Held<'a> {
    #[inline]
    pub(super) fn new(reach: Reach<'a>, tally: Tally<'a>, passage: Option<Passage<'a>>) -> Self {
        Self { reach, tally, passage }
    }

    /// Writes all of `data`.
    #[inline]
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<()> {
        let reach = &mut self.reach;
        let result = match &self.passage {
            None => reach.write(address, data),
            Some(passage) => passage.write(address, data, &mut || reach.write(address, data)),
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
        let to = self.reach.whole(address, length, true);
        let from = source.reach.whole(source_address, length, false);
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
        let targets = self.reach.parts(address, length, true);
        self.tally.count(length, targets.is_ok());
        let targets = targets?;
        let sources = source.reach.parts(source_address, length, false);
        source.tally.count(length, sources.is_ok());
        let mut sources = sources.map_err(of_source)?.into_iter();
        let mut source = sources.next();
        for mut to in targets {
            while let Some(from) = source {
                let now = from.len().min(to.len());
                from.copy_to_volatile_slice(to);
                source = rest(from, now).or_else(|| sources.next());
                match rest(to, now) {
                    Some(rest) => to = rest,
                    None => break,
                }
            }
        }
        Ok(())
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
        let (reach, length) = (&mut self.reach, data.len());
        let result = match &self.passage {
            None => reach.read(address, data),
            Some(passage) => passage.read(address, data, &mut |data| reach.read(address, data)),
        };
        self.tally.count(length, result.is_ok());
        result
    }
}

/// What is left of a slice without its first bytes, if anything is.
fn rest(slice: VolatileSlice<'_>, without: usize) -> Option<VolatileSlice<'_>> {
    slice.offset(without).ok().filter(|rest| !rest.is_empty())
}

fn of_source(error: DmaError) -> DmaError {
    DmaError::Source(Box::new(error))
}
