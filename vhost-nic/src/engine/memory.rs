//! Gather and scatter: the data of WQEs in guest memory, through memory keys.

use std::ops::Range;

use mlx5_prm::wqe::DataSegment;
use thiserror::Error;

use crate::dma::{self, Dma, DmaError, Held, Purpose};
use crate::hca::Hca;
use crate::hca::mkey::{self, Access, Accessor, MkeyError, Segment};
use crate::hca::qp::{Data, DataList};
use crate::net::{Cursor, Origin, Payload, Sources};

/// Reason why memory could not be accessed.
#[derive(Debug, Error)]
pub(super) enum AccessError {
    #[error("{0}")]
    Mkey(MkeyError, KeyRange),
    #[error(transparent)]
    Dma(#[from] DmaError),
    #[error("the data exceeds its segments")]
    Length,
    #[error("the operand of an atomic is not contiguous")]
    Split,
}

impl AccessError {
    /// Whether the sender's memory is at fault: the packet never came to be, and the receiver must not suffer.
    pub fn is_of_source(&self) -> bool {
        matches!(self, Self::Dma(DmaError::Source(_)))
    }
}

/// A range of a memory key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyRange {
    pub key: u32,
    pub address: u64,
    pub length: usize,
}

impl KeyRange {
    fn part(self, part: Range<usize>) -> Self {
        Self {
            address: self.address.wrapping_add(part.start as u64),
            length: part.len(),
            ..self
        }
    }
}

impl From<DataSegment> for KeyRange {
    fn from(segment: DataSegment) -> Self {
        Self {
            key: segment.lkey.get(),
            address: segment.address.get(),
            length: segment.byte_count.get() as usize,
        }
    }
}

/// Destination of gathered data.
pub(super) trait Gather {
    /// Takes note of the range that the memory is translated from.
    fn origin(&mut self, _: Origin) {}
    fn bytes(&mut self, bytes: &[u8]);
    fn zeros(&mut self, length: usize);
    fn memory(&mut self, dma: &Dma, address: u64, length: usize) -> dma::Result<()>;
}

/// Gathers by reference; the memory is read when the payload arrives.
impl Gather for Payload<'_> {
    fn origin(&mut self, origin: Origin) {
        self.note_origin(origin);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.push_bytes(bytes);
    }

    fn zeros(&mut self, length: usize) {
        self.push_zeros(length);
    }

    fn memory(&mut self, _: &Dma, address: u64, length: usize) -> dma::Result<()> {
        self.push_memory(address, length);
        Ok(())
    }
}

/// Gathers a copy.
impl Gather for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn zeros(&mut self, length: usize) {
        self.resize(self.len() + length, 0);
    }

    fn memory(&mut self, dma: &Dma, address: u64, length: usize) -> dma::Result<()> {
        let start = self.len();
        self.zeros(length);
        dma.read(Purpose::Gather, address, &mut self[start..])
    }
}

/// Source of scattered data, consumed from the front.
pub(super) trait Scatter {
    /// Writes the next `length` bytes to an address.
    fn write_to(&mut self, length: usize, memory: &mut Held<'_>, address: u64) -> dma::Result<()>;
    /// Consumes the next `length` bytes.
    fn skip(&mut self, length: usize);
}

impl Scatter for Cursor<'_, '_> {
    fn write_to(&mut self, length: usize, memory: &mut Held<'_>, address: u64) -> dma::Result<()> {
        Cursor::write_to(self, length, memory, address)
    }

    fn skip(&mut self, length: usize) {
        Cursor::skip(self, length);
    }
}

/// Bytes in two parts.
pub(super) struct Parts<'a>(pub &'a [u8], pub &'a [u8]);

impl<'a> Parts<'a> {
    pub fn len(&self) -> usize {
        self.0.len() + self.1.len()
    }

    /// Takes bytes from the front, at most `limit`; none only if no bytes are left.
    fn take(&mut self, limit: usize) -> &'a [u8] {
        if self.0.is_empty() {
            self.0 = std::mem::take(&mut self.1);
        }
        let (taken, rest) = self.0.split_at(limit.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

impl Scatter for Parts<'_> {
    fn write_to(&mut self, length: usize, memory: &mut Held<'_>, address: u64) -> dma::Result<()> {
        let mut done = 0;
        while done < length {
            let now = self.take(length - done);
            if now.is_empty() {
                break;
            }
            memory.write(address.wrapping_add(done as u64), now)?;
            done += now.len();
        }
        Ok(())
    }

    fn skip(&mut self, length: usize) {
        let mut left = length;
        while left > 0 {
            let now = self.take(left).len();
            if now == 0 {
                break;
            }
            left -= now;
        }
    }
}

/// Writes to a segment of a key; writes to the null key are discarded.
fn write_segment(data: &mut impl Scatter, memory: &mut Held<'_>, segment: Segment) -> dma::Result<()> {
    match segment {
        Segment::Memory(address, length) => data.write_to(length, memory, address),
        Segment::Null(length) => {
            data.skip(length);
            Ok(())
        }
    }
}

/// Calls `act` with the parts of data segments that a range of their bytes has, all of which must exist.
fn each_part(
    list: impl Iterator<Item = DataSegment>,
    range: Range<usize>,
    mut act: impl FnMut(KeyRange) -> Result<(), AccessError>,
) -> Result<(), AccessError> {
    let mut at = 0;
    for segment in list {
        let size = segment.byte_count.get() as usize;
        let (from, until) = (at.max(range.start), (at + size).min(range.end));
        if from < until {
            act(KeyRange::from(segment).part(from - at..until - at))?;
        }
        at += size;
    }
    if at < range.end {
        Err(AccessError::Length)
    } else {
        Ok(())
    }
}

/// Guest memory as one queue may access it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory<'a> {
    pub hca: &'a Hca,
    pub accessor: Accessor,
}

impl Memory<'_> {
    /// Calls `act` with each segment of a range, in order.
    fn each(
        &self,
        range: KeyRange,
        access: Access,
        act: impl FnMut(Segment) -> Result<(), DmaError>,
    ) -> Result<(), AccessError> {
        let KeyRange { key, address, length } = range;
        mkey::translate(&self.hca.mkeys, key, self.accessor, address, length as u64, access, act)
            .map_err(|error| AccessError::Mkey(error, range))??;
        Ok(())
    }

    /// Checks that the key of a range allows an access to all of it. What is behind the key is checked on access.
    pub fn check(&self, range: KeyRange, access: Access) -> Result<(), AccessError> {
        let KeyRange { key, address, length } = range;
        mkey::check(&self.hca.mkeys, key, self.accessor, address, length as u64, access)
            .map_err(|error| AccessError::Mkey(error, range))
    }

    /// Gathers a range.
    pub fn gather(&self, range: KeyRange, access: Access, to: &mut impl Gather) -> Result<(), AccessError> {
        to.origin(self.origin(range, access));
        self.each(range, access, |segment| self.gather_segment(segment, to))
    }

    /// Gathers a range as [`gather`](Self::gather) does; the key stays locked.
    pub fn gather_recent(
        &self,
        keys: &mut mkey::Recent<'_>,
        range: KeyRange,
        access: Access,
        to: &mut impl Gather,
    ) -> Result<(), AccessError> {
        to.origin(self.origin(range, access));
        translate(keys, self.accessor, range, access, |segment| {
            self.gather_segment(segment, to)
        })
    }

    fn origin(&self, range: KeyRange, access: Access) -> Origin {
        Origin {
            queue: self.accessor.qpn,
            key: range.key,
            address: range.address,
            length: range.length,
            remote: access == Access::RemoteRead,
        }
    }

    fn gather_segment(&self, segment: Segment, to: &mut impl Gather) -> dma::Result<()> {
        match segment {
            Segment::Memory(address, length) => to.memory(&self.hca.dma, address, length),
            Segment::Null(length) => {
                to.zeros(length);
                Ok(())
            }
        }
    }

    /// Gathers a range of the data of a message; the last key stays locked.
    pub fn gather_list(
        &self,
        keys: &mut mkey::Recent<'_>,
        list: &DataList,
        range: Range<usize>,
        to: &mut impl Gather,
    ) -> Result<(), AccessError> {
        let mut at = 0;
        for data in list.parts() {
            let size = data.length();
            let (from, until) = (at.max(range.start), (at + size).min(range.end));
            if from < until {
                let part = from - at..until - at;
                match data {
                    Data::Inline(bytes) => to.bytes(&bytes[part]),
                    Data::Memory(segment) => {
                        let range = KeyRange::from(segment).part(part);
                        self.gather_recent(keys, range, Access::LocalRead, to)?;
                    }
                }
            }
            at += size;
        }
        Ok(())
    }

    /// Writes `data` to this range of a scatter list, all of which must exist.
    pub fn scatter(
        &self,
        list: impl Iterator<Item = DataSegment>,
        range: Range<usize>,
        data: &mut impl Scatter,
    ) -> Result<(), AccessError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut memory = self.hca.dma.hold(Purpose::Scatter);
        each_part(list, range, |part| {
            self.each(part, Access::LocalWrite, |segment| {
                write_segment(data, &mut memory, segment)
            })
        })
    }

    /// Replaces the 8 bytes at an address by what `change` returns, if anything, and returns the original. Memory has
    /// them in the order of the guest's processor.
    pub fn atomic(&self, key: u32, address: u64, change: impl Fn(u64) -> Option<u64>) -> Result<u64, AccessError> {
        let mut original = None;
        let length = size_of::<u64>();
        self.each(KeyRange { key, address, length }, Access::RemoteAtomic, |segment| {
            match segment {
                Segment::Memory(address, whole) if whole == length => {
                    original = Some(self.hca.dma.update(Purpose::Atomic, address, &change)?);
                }
                Segment::Null(_) => original = Some(0),
                Segment::Memory(..) => {}
            }
            Ok(())
        })?;
        original.ok_or(AccessError::Split)
    }
}

/// Memory accessed by a burst of packets: keeps the mappings of both guests and the last key locked from one packet to
/// the next.
pub(super) struct AccessContext<'a, 'p> {
    dma: &'a Dma,
    keys: mkey::Recent<'a>,
    held: Option<Held<'a>>,
    sources: Sources<'p>,
}

impl<'a, 'p> AccessContext<'a, 'p> {
    pub fn new(hca: &'a Hca) -> Self {
        Self {
            dma: &hca.dma,
            keys: mkey::Recent::new(&hca.mkeys),
            held: None,
            sources: Sources::default(),
        }
    }

    /// Unlocks everything. Required before the same thread accesses the memory in another way or changes a key.
    pub fn unlock(&mut self) {
        self.sources.release();
        self.held = None;
        self.keys.unlock();
    }

    /// Does the same as [`Memory::check`].
    pub fn check(&mut self, accessor: Accessor, range: KeyRange, access: Access) -> Result<(), AccessError> {
        let KeyRange { key, address, length } = range;
        self.keys
            .check(key, accessor, address, length as u64, access)
            .map_err(|error| AccessError::Mkey(error, range))
    }

    /// Writes a payload to an address of a key.
    pub fn write(
        &mut self,
        accessor: Accessor,
        key: u32,
        address: u64,
        payload: &Payload<'p>,
    ) -> Result<(), AccessError> {
        let Self {
            dma,
            keys,
            held,
            sources,
        } = self;
        let memory = held.get_or_insert_with(|| dma.hold(Purpose::Scatter));
        let mut cursor = payload.cursor(sources);
        let length = payload.len();
        let range = KeyRange { key, address, length };
        translate(keys, accessor, range, Access::RemoteWrite, |segment| {
            write_segment(&mut cursor, memory, segment)
        })
    }

    /// Writes a payload to this range of a scatter list, all of which must exist.
    pub fn scatter(
        &mut self,
        accessor: Accessor,
        list: impl Iterator<Item = DataSegment>,
        range: Range<usize>,
        payload: &Payload<'p>,
    ) -> Result<(), AccessError> {
        let Self {
            dma,
            keys,
            held,
            sources,
        } = self;
        let memory = held.get_or_insert_with(|| dma.hold(Purpose::Scatter));
        let mut cursor = payload.cursor(sources);
        each_part(list, range, |part| {
            translate(keys, accessor, part, Access::LocalWrite, |segment| {
                write_segment(&mut cursor, memory, segment)
            })
        })
    }
}

/// Calls `act` with each segment of a range, in order; the key stays locked.
#[inline]
fn translate(
    keys: &mut mkey::Recent<'_>,
    accessor: Accessor,
    range: KeyRange,
    access: Access,
    act: impl FnMut(Segment) -> Result<(), DmaError>,
) -> Result<(), AccessError> {
    let KeyRange { key, address, length } = range;
    keys.translate(key, accessor, address, length as u64, access, act)
        .map_err(|error| AccessError::Mkey(error, range))??;
    Ok(())
}
