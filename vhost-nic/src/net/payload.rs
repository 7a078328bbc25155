//! A payload on its way by reference: where its bytes are, in the memory of the guest that sends it.

use smallvec::SmallVec;

use crate::dma::{self, Dma, DmaError, Held, Purpose};

/// Bytes of a payload's own that need no memory: short inline data, the result of an atomic.
const SHORT: usize = 64;

/// A part of a payload.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// Bytes of the packet's own, from here on: data that was in the WQE.
    Own { start: usize, length: usize },
    /// Bytes in the sender's memory.
    Memory { address: u64, length: usize },
    /// Zeros.
    Zeros(usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Own { length, .. } | Self::Memory { length, .. } | Self::Zeros(length) => *length,
        }
    }
}

/// A payload, in order. It may change until it is read: it is the sender's memory.
#[derive(Debug, Clone)]
pub struct Payload<'a> {
    memory: Option<&'a Dma>,
    pieces: SmallVec<[Piece; 2]>,
    own: SmallVec<[u8; SHORT]>,
    length: usize,
}

impl<'a> Payload<'a> {
    /// A payload that has nothing of anybody's memory.
    pub fn new() -> Self {
        Self {
            memory: None,
            pieces: SmallVec::new(),
            own: SmallVec::new(),
            length: 0,
        }
    }

    /// A payload of parts of this memory.
    pub fn of_memory(memory: &'a Dma) -> Self {
        Self {
            memory: Some(memory),
            ..Self::new()
        }
    }

    /// Takes all away, but the memory it may be of.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.own.clear();
        self.length = 0;
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends bytes of its own.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let start = self.own.len();
        self.own.extend_from_slice(bytes);
        self.push(Piece::Own {
            start,
            length: bytes.len(),
        });
    }

    /// Appends what is in the memory.
    pub fn push_memory(&mut self, address: u64, length: usize) {
        self.push(Piece::Memory { address, length });
    }

    /// Appends zeros.
    pub fn push_zeros(&mut self, length: usize) {
        self.push(Piece::Zeros(length));
    }

    fn push(&mut self, piece: Piece) {
        self.length += piece.len();
        self.pieces.push(piece);
    }

    /// The sender's memory at `address`, which a payload without any does not have.
    fn memory(&self, address: u64, length: usize) -> dma::Result<&'a Dma> {
        self.memory.ok_or(DmaError::Unmapped {
            address,
            length: length as u64,
        })
    }

    fn own(&self, start: usize, length: usize) -> &[u8] {
        &self.own[start..start + length]
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) -> dma::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Own { start, length } => out.extend_from_slice(self.own(*start, *length)),
                Piece::Zeros(length) => out.resize(out.len() + length, 0),
                Piece::Memory { address, length } => {
                    let start = out.len();
                    out.resize(start + length, 0);
                    self.memory(*address, *length)?
                        .read(Purpose::Gather, *address, &mut out[start..])?;
                }
            }
        }
        Ok(())
    }

    /// The `length` bytes from `offset` on, as far as there are so many.
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let mut part = Self {
            memory: self.memory,
            ..Self::new()
        };
        let (mut at, end) = (0, offset.saturating_add(length));
        for piece in &self.pieces {
            let (from, to) = (at.max(offset), (at + piece.len()).min(end));
            if from < to {
                let (skip, now) = (from - at, to - from);
                match piece {
                    Piece::Own { start, .. } => part.push_bytes(self.own(start + skip, now)),
                    Piece::Zeros(_) => part.push_zeros(now),
                    Piece::Memory { address, .. } => part.push_memory(address.wrapping_add(skip as u64), now),
                }
            }
            at += piece.len();
        }
        part
    }

    /// A reader of it, at its beginning.
    pub fn cursor(&self) -> Cursor<'_, 'a> {
        Cursor {
            payload: self,
            source: None,
            piece: 0,
            skip: 0,
        }
    }
}

/// Reads a payload from its beginning to its end.
#[derive(Debug)]
pub struct Cursor<'p, 'a> {
    payload: &'p Payload<'a>,
    /// The sender's memory, once something is read of it.
    source: Option<Held<'a>>,
    /// The piece that is read next, and how many of its bytes are read.
    piece: usize,
    skip: usize,
}

impl Cursor<'_, '_> {
    /// Passes over the next `length` bytes.
    pub fn skip(&mut self, length: usize) {
        let mut rest = length;
        while let Some(piece) = self.payload.pieces.get(self.piece).filter(|_| rest > 0) {
            let now = rest.min(piece.len() - self.skip);
            self.advance(piece.len(), now);
            rest -= now;
        }
    }

    /// Writes the next `length` bytes to `address` of a guest's memory; those from memory are copied once.
    pub fn write_to(&mut self, length: usize, target: &mut Held<'_>, address: u64) -> dma::Result<()> {
        let (mut address, mut rest) = (address, length);
        while rest > 0 {
            let Some(piece) = self.payload.pieces.get(self.piece) else {
                return Err(DmaError::Unmapped {
                    address,
                    length: rest as u64,
                });
            };
            let now = rest.min(piece.len() - self.skip);
            match piece {
                Piece::Own { start, .. } => target.write(address, self.payload.own(start + self.skip, now))?,
                Piece::Zeros(_) => target.write(address, &vec![0; now])?,
                Piece::Memory { address: source, .. } => {
                    let source = source.wrapping_add(self.skip as u64);
                    let held = match &mut self.source {
                        Some(held) => held,
                        none => none.insert(self.payload.memory(source, now)?.hold(Purpose::Gather)),
                    };
                    target.copy_from(address, held, source, now)?;
                }
            }
            self.advance(piece.len(), now);
            address = address.wrapping_add(now as u64);
            rest -= now;
        }
        Ok(())
    }

    /// Goes on by `now` bytes of a piece of this length.
    fn advance(&mut self, length: usize, now: usize) {
        self.skip += now;
        if self.skip == length {
            (self.piece, self.skip) = (self.piece + 1, 0);
        }
    }
}

impl Default for Payload<'_> {
    fn default() -> Self {
        Self::new()
    }
}
