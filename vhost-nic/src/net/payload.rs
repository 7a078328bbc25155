//! A payload on its way by reference: where its bytes are, in the memory of the guest that sends it.

use smallvec::SmallVec;

use crate::dma::{self, Dma, DmaError, Purpose};

/// Bytes of a payload that need no memory of their own: short inline data, the result of an atomic.
const SHORT: usize = 64;

/// A part of a payload.
#[derive(Debug, Clone)]
enum Piece {
    /// Bytes of the packet's own: data that was in the WQE.
    Bytes(SmallVec<[u8; SHORT]>),
    /// Bytes in the sender's memory.
    Memory { address: u64, length: usize },
    /// Zeros.
    Zeros(usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Memory { length, .. } | Self::Zeros(length) => *length,
        }
    }
}

/// A payload, in order. It may change until it is read: it is the sender's memory.
#[derive(Debug, Clone)]
pub struct Payload<'a> {
    memory: Option<&'a Dma>,
    pieces: SmallVec<[Piece; 2]>,
    length: usize,
}

impl<'a> Payload<'a> {
    /// A payload that has nothing of anybody's memory.
    pub fn new() -> Self {
        Self {
            memory: None,
            pieces: SmallVec::new(),
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
        self.push(Piece::Bytes(SmallVec::from_slice(bytes)));
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

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) -> dma::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
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

    /// Writes the `length` bytes from `offset` on to `address` of a guest's memory; those from memory are copied once.
    pub fn write_to(&self, offset: usize, length: usize, target: &Dma, address: u64) -> dma::Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.length);
        let Some(end) = end else {
            return Err(DmaError::Unmapped {
                address,
                length: length as u64,
            });
        };
        let mut at = 0;
        for piece in &self.pieces {
            let (from, to) = (at.max(offset), (at + piece.len()).min(end));
            if from < to {
                let (skip, now) = (from - at, to - from);
                let address = address.wrapping_add((from - offset) as u64);
                match piece {
                    Piece::Bytes(bytes) => target.write(Purpose::Scatter, address, &bytes[skip..skip + now])?,
                    Piece::Zeros(_) => target.write(Purpose::Scatter, address, &vec![0; now])?,
                    Piece::Memory { address: source, .. } => {
                        let source = source.wrapping_add(skip as u64);
                        let memory = self.memory(source, now)?;
                        target.copy_from(Purpose::Scatter, address, memory, Purpose::Gather, source, now)?;
                    }
                }
            }
            at += piece.len();
        }
        Ok(())
    }
}

impl Default for Payload<'_> {
    fn default() -> Self {
        Self::new()
    }
}
