//! Payload by reference: a scatter-gather list in the memory of the sending guest.

use std::ptr;
use std::sync::atomic::{Ordering, fence};

use smallvec::SmallVec;

use super::inline_bytes::InlineBytes;
use super::permission::{Origin, Permissions};
use super::readers::{Readers, Reading};
use crate::dma::{self, Dma, DmaError, Held, Purpose};

/// A segment of a payload.
#[derive(Debug, Clone, Copy)]
enum Segment {
    /// Inline bytes of the payload, from `start`: data from the WQE.
    Inline { start: usize, length: usize },
    /// Bytes in the sender's memory.
    Memory { address: u64, length: usize },
    /// Zeros.
    Zeros(usize),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Inline { length, .. } | Self::Memory { length, .. } | Self::Zeros(length) => *length,
        }
    }
}

/// Memory of the sending guest, and the permission to read it.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    memory: &'a Dma,
    readers: &'a Readers,
    permissions: &'a dyn Permissions,
}

/// Memory of a sending guest while it is read.
#[derive(Debug)]
struct Reader<'a> {
    held: Held<'a>,
    reading: Reading<'a>,
    memory: &'a Dma,
}

/// Memory of the sending guest that a burst of payloads is read from, held from one payload to the next.
///
/// Meanwhile the thread must not access this memory in any other way, nor revoke permissions of the guest.
#[derive(Debug, Default)]
pub struct Sources<'a>(Option<Reader<'a>>);

impl<'a> Sources<'a> {
    /// Lets go of the memory.
    pub fn release(&mut self) {
        self.0 = None;
    }

    /// Holds the memory of a payload, to read `length` bytes at `address`.
    fn hold(&mut self, payload: &Payload<'a>, address: u64, length: usize) -> dma::Result<()> {
        let is_held = |reader: &Reader<'_>| {
            let memory = payload.source.map(|source| source.memory);
            memory.is_some_and(|memory| ptr::eq(memory, reader.memory)) && reader.reading.revocations == payload.stamp
        };
        if !self.0.as_ref().is_some_and(is_held) {
            // The last one is let go of first: a revocation that it does not know may wait for it.
            self.0 = None;
            self.0 = Some(payload.hold(address, length)?);
        }
        Ok(())
    }
}

/// A payload. It may change until it is read: it is the sender's memory.
#[derive(Debug, Clone)]
pub struct Payload<'a> {
    source: Option<Source<'a>>,
    /// Ranges of keys that the segments in memory were translated from.
    origins: SmallVec<[Origin; 1]>,
    /// Number of revocations before the first translation.
    stamp: u64,
    segments: SmallVec<[Segment; 2]>,
    inline: InlineBytes,
    length: usize,
}

impl<'a> Payload<'a> {
    /// Creates an empty payload without guest memory.
    pub fn new() -> Self {
        Self {
            source: None,
            origins: SmallVec::new(),
            stamp: 0,
            segments: SmallVec::new(),
            inline: InlineBytes::new(),
            length: 0,
        }
    }

    /// Creates an empty payload that can have segments in `memory`, while `permissions` allow it.
    pub fn of_memory(memory: &'a Dma, permissions: &'a dyn Permissions) -> Self {
        let readers = permissions.readers();
        let source = Source {
            memory,
            readers,
            permissions,
        };
        Self {
            source: Some(source),
            stamp: readers.revocations(),
            ..Self::new()
        }
    }

    /// Removes all segments.
    pub fn clear(&mut self) {
        self.stamp = self.source.map_or(0, |source| source.readers.revocations());
        self.origins.clear();
        self.segments.clear();
        self.inline.clear();
        self.length = 0;
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends inline bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let start = self.inline.len();
        self.inline.push(bytes);
        self.push(Segment::Inline {
            start,
            length: bytes.len(),
        });
    }

    /// Notes the range that the segments of memory appended next are translated from.
    pub fn note_origin(&mut self, origin: Origin) {
        self.origins.push(origin);
    }

    /// Appends a segment of guest memory.
    pub fn push_memory(&mut self, address: u64, length: usize) {
        self.push(Segment::Memory { address, length });
    }

    /// Appends zeros.
    pub fn push_zeros(&mut self, length: usize) {
        self.push(Segment::Zeros(length));
    }

    fn push(&mut self, segment: Segment) {
        self.length += segment.len();
        self.segments.push(segment);
    }

    /// Holds the sender's memory; an error at `address` for a payload without any, or whose permission was revoked.
    fn hold(&self, address: u64, length: usize) -> dma::Result<Reader<'a>> {
        let source = self.source.ok_or_else(|| unreadable(address, length))?;
        // A revocation that is not seen here waits until the reader is dropped.
        let reading = source.readers.begin();
        if !self.is_allowed(source, reading.revocations) {
            return Err(unreadable(address, length));
        }
        Ok(Reader {
            held: source.memory.hold(Purpose::Gather),
            reading,
            memory: source.memory,
        })
    }

    /// Whether the memory may still be read after this number of revocations.
    #[inline]
    fn is_allowed(&self, source: Source<'_>, revocations: u64) -> bool {
        revocations == self.stamp || self.is_valid(source.permissions)
    }

    /// Whether all segments in memory are still what their origins stand for, in the same order: the peer's thread,
    /// which does this, looks at each once.
    #[cold]
    fn is_valid(&self, permissions: &dyn Permissions) -> bool {
        let ranges = |origin| permissions.memory_of(origin, self.stamp);
        let mut allowed = self.origins.iter().flat_map(ranges).peekable();
        self.segments.iter().all(|segment| match *segment {
            Segment::Memory { address, length } => {
                let is_elsewhere = |(start, size): &(u64, usize)| {
                    let skip = address.checked_sub(*start);
                    skip.is_none_or(|skip| skip.saturating_add(length as u64) > *size as u64)
                };
                while allowed.next_if(is_elsewhere).is_some() {}
                allowed.peek().is_some()
            }
            Segment::Inline { .. } | Segment::Zeros(_) => true,
        })
    }

    fn inline(&self, start: usize, length: usize) -> &[u8] {
        &self.inline.as_slice()[start..start + length]
    }

    /// Appends the bytes of the payload to `out`. Errors are [`DmaError::Source`].
    pub fn append_to(&self, out: &mut Vec<u8>) -> dma::Result<()> {
        let begin = out.len();
        let read = self.read_segments(out);
        if read.is_err() {
            out.truncate(begin);
        }
        read
    }

    fn read_segments(&self, out: &mut Vec<u8>) -> dma::Result<()> {
        let mut first = None;
        for segment in &self.segments {
            match segment {
                Segment::Inline { start, length } => out.extend_from_slice(self.inline(*start, *length)),
                Segment::Zeros(length) => out.resize(out.len() + length, 0),
                Segment::Memory { address, length } => {
                    let start = out.len();
                    out.resize(start + length, 0);
                    let source = self.source.ok_or_else(|| unreadable(*address, *length))?;
                    source
                        .memory
                        .read(Purpose::Gather, *address, &mut out[start..])
                        .map_err(|error| DmaError::Source(Box::new(error)))?;
                    first.get_or_insert((source, *address, *length));
                }
            }
        }
        // Once for all segments, as it may translate the whole payload again. Read first: bytes from after a revocation
        // are not passed on.
        fence(Ordering::Acquire);
        match first {
            Some((source, address, length)) if !self.is_allowed(source, source.readers.revocations()) => {
                Err(unreadable(address, length))
            }
            _ => Ok(()),
        }
    }

    /// Returns the `length` bytes from `offset` on, clipped to the end.
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let mut part = Self {
            source: self.source,
            origins: self.origins.clone(),
            stamp: self.stamp,
            ..Self::new()
        };
        let (mut at, end) = (0, offset.saturating_add(length));
        for segment in &self.segments {
            let (from, to) = (at.max(offset), (at + segment.len()).min(end));
            if from < to {
                let (skip, now) = (from - at, to - from);
                match segment {
                    Segment::Inline { start, .. } => part.push_bytes(self.inline(start + skip, now)),
                    Segment::Zeros(_) => part.push_zeros(now),
                    Segment::Memory { address, .. } => part.push_memory(address.wrapping_add(skip as u64), now),
                }
            }
            at += segment.len();
        }
        part
    }

    /// Returns a reader at the start. It holds the sender's memory in `sources`, after its first read from it.
    pub fn cursor<'p>(&'p self, sources: &'p mut Sources<'a>) -> Cursor<'p, 'a> {
        Cursor {
            payload: self,
            sources,
            is_held: false,
            segment: 0,
            skip: 0,
        }
    }
}

fn unreadable(address: u64, length: usize) -> DmaError {
    DmaError::Source(Box::new(DmaError::Unmapped {
        address,
        length: length as u64,
    }))
}

/// Sequential reader of a payload.
#[derive(Debug)]
pub struct Cursor<'p, 'a> {
    payload: &'p Payload<'a>,
    sources: &'p mut Sources<'a>,
    /// Whether the sender's memory is held in `sources`.
    is_held: bool,
    /// Index of the next segment to read, and the number of its bytes already read.
    segment: usize,
    skip: usize,
}

impl Cursor<'_, '_> {
    /// Skips the next `length` bytes.
    pub fn skip(&mut self, length: usize) {
        let mut rest = length;
        while let Some(segment) = self.payload.segments.get(self.segment).filter(|_| rest > 0) {
            let now = rest.min(segment.len() - self.skip);
            self.advance(segment.len(), now);
            rest -= now;
        }
    }

    /// Writes the next `length` bytes to `address` of a guest's memory. Bytes from the sender's memory are copied once.
    pub fn write_to(&mut self, length: usize, target: &mut Held<'_>, address: u64) -> dma::Result<()> {
        let (mut address, mut rest) = (address, length);
        while rest > 0 {
            let Some(segment) = self.payload.segments.get(self.segment) else {
                return Err(DmaError::Unmapped {
                    address,
                    length: rest as u64,
                });
            };
            let now = rest.min(segment.len() - self.skip);
            match segment {
                Segment::Inline { start, .. } => target.write(address, self.payload.inline(start + self.skip, now))?,
                Segment::Zeros(_) => target.write(address, &vec![0; now])?,
                Segment::Memory { address: source, .. } => {
                    let source = source.wrapping_add(self.skip as u64);
                    if !self.is_held {
                        self.sources.hold(self.payload, source, now)?;
                        self.is_held = true;
                    }
                    let reader = self.sources.0.as_mut().ok_or_else(|| unreadable(source, now))?;
                    target.copy_from(address, &mut reader.held, source, now)?;
                }
            }
            self.advance(segment.len(), now);
            address = address.wrapping_add(now as u64);
            rest -= now;
        }
        Ok(())
    }

    /// Advances by `now` bytes within a segment of this length.
    fn advance(&mut self, length: usize, now: usize) {
        self.skip += now;
        if self.skip == length {
            (self.segment, self.skip) = (self.segment + 1, 0);
        }
    }
}

impl Default for Payload<'_> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;

    use mlx5_test_driver::memory::{BASE, Memory, SIZE};

    use super::*;
    use crate::dma::{Backing, GuestMap};

    /// Permissions of which a revocation leaves `kept`.
    #[derive(Debug, Default)]
    struct Revocable {
        readers: Readers,
        kept: Vec<(u64, usize)>,
        translations: AtomicUsize,
    }

    impl Permissions for Revocable {
        fn readers(&self) -> &Readers {
            &self.readers
        }

        fn memory_of(&self, _: &Origin, _: u64) -> Vec<(u64, usize)> {
            self.translations.fetch_add(1, Ordering::Relaxed);
            self.kept.clone()
        }
    }

    fn guest(ram: &Arc<Memory>) -> Dma {
        let dma = Dma::new();
        let backing = Backing {
            file: ram.file(),
            offset: 0,
            writable: true,
        };
        dma.map(BASE, SIZE, Some(backing)).unwrap();
        dma
    }

    fn copy<'a>(payload: &Payload<'a>, sources: &mut Sources<'a>, to: &Dma, address: u64) -> dma::Result<()> {
        let mut memory = to.hold(Purpose::Scatter);
        payload.cursor(sources).write_to(payload.len(), &mut memory, address)
    }

    #[test]
    fn a_revocation_waits_for_a_burst_and_ends_what_was_made_before_it() {
        let ram = [Memory::new(), Memory::new()];
        let [sender, receiver] = ram.each_ref().map(guest);
        sender.write(Purpose::Gather, BASE, b"abcd").unwrap();
        let permissions = Revocable::default();
        let [first, second, late] = [0, 2, 0].map(|offset| {
            let mut payload = Payload::of_memory(&sender, &permissions);
            payload.push_memory(BASE + offset, 2);
            payload
        });
        let mut sources = Sources::default();
        let revoked = AtomicBool::new(false);
        thread::scope(|scope| {
            copy(&first, &mut sources, &receiver, BASE).unwrap();
            scope.spawn(|| {
                permissions.readers.revoke();
                revoked.store(true, Ordering::SeqCst);
            });
            while permissions.readers.revocations() == 0 {
                thread::yield_now();
            }
            copy(&second, &mut sources, &receiver, BASE + 2).unwrap();
            assert!(!revoked.load(Ordering::SeqCst));
            sources.release();
        });
        let refused = copy(&late, &mut sources, &receiver, BASE).unwrap_err();
        assert!(matches!(refused, DmaError::Source(_)), "{refused}");
        let mut bytes = [0; 4];
        receiver.read(Purpose::Scatter, BASE, &mut bytes).unwrap();
        assert_eq!(&bytes, b"abcd");
    }

    #[test]
    fn a_burst_of_two_senders_is_read_from_the_memory_of_each() {
        let ram = [Memory::new(), Memory::new(), Memory::new()];
        let [one, other, receiver] = ram.each_ref().map(guest);
        one.write(Purpose::Gather, BASE, b"one").unwrap();
        other.write(Purpose::Gather, BASE, b"two").unwrap();
        let permissions = [Revocable::default(), Revocable::default()];
        let mut sources = Sources::default();
        for (sender, permissions, sent) in [(&one, &permissions[0], b"one"), (&other, &permissions[1], b"two")] {
            let mut payload = Payload::of_memory(sender, permissions);
            payload.push_memory(BASE, 3);
            copy(&payload, &mut sources, &receiver, BASE).unwrap();
            let mut bytes = [0; 3];
            receiver.read(Purpose::Scatter, BASE, &mut bytes).unwrap();
            assert_eq!(&bytes, sent);
        }
    }

    /// The sender may have made any number of segments, and revokes other keys all the time.
    #[test]
    fn a_payload_is_translated_again_once_for_all_of_its_segments() {
        const SEGMENTS: u64 = 1000;
        let ram = Memory::new();
        let sender = guest(&ram);
        let segments = (0..SEGMENTS).map(|index| (BASE + 2 * index, 1));
        let origin = Origin {
            queue: 1,
            key: 2,
            address: 0,
            length: SEGMENTS as usize,
            remote: false,
        };
        for (kept, allowed) in [(segments.clone().collect(), true), (Vec::new(), false)] {
            let permissions = Revocable {
                kept,
                ..Revocable::default()
            };
            let mut payload = Payload::of_memory(&sender, &permissions);
            payload.note_origin(origin);
            segments
                .clone()
                .for_each(|(address, length)| payload.push_memory(address, length));
            permissions.readers.revoke();
            let mut out = b"head".to_vec();
            assert_eq!(payload.append_to(&mut out).is_ok(), allowed);
            assert_eq!(out.len(), 4 + if allowed { SEGMENTS as usize } else { 0 });
            assert_eq!(permissions.translations.load(Ordering::Relaxed), 1);
        }
    }
}
