//! A payload on its way by reference: where its bytes are, in the memory of the guest that sends it.

use std::sync::Arc;

use crate::dma::{self, Dma, DmaError, Purpose};

/// A part of a payload.
#[derive(Debug, Clone)]
enum Piece {
    /// Bytes of the packet's own: data that was in the WQE.
    Bytes(Vec<u8>),
    /// Bytes in a guest's memory.
    Memory { dma: Arc<Dma>, address: u64, length: usize },
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
#[derive(Debug, Clone, Default)]
pub struct Payload {
    pieces: Vec<Piece>,
    length: usize,
}

impl Payload {
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
        self.push(Piece::Bytes(bytes.to_vec()));
    }

    /// Appends what is in a guest's memory.
    pub fn push_memory(&mut self, dma: &Arc<Dma>, address: u64, length: usize) {
        self.push(Piece::Memory {
            dma: dma.clone(),
            address,
            length,
        });
    }

    /// Appends zeros.
    pub fn push_zeros(&mut self, length: usize) {
        self.push(Piece::Zeros(length));
    }

    fn push(&mut self, piece: Piece) {
        self.length += piece.len();
        self.pieces.push(piece);
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) -> dma::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Zeros(length) => out.resize(out.len() + length, 0),
                Piece::Memory { dma, address, length } => {
                    let start = out.len();
                    out.resize(start + length, 0);
                    dma.read(Purpose::Gather, *address, &mut out[start..])?;
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
                    Piece::Memory {
                        dma, address: source, ..
                    } => {
                        let source = source.wrapping_add(skip as u64);
                        target.copy_from(Purpose::Scatter, address, dma, Purpose::Gather, source, now)?;
                    }
                }
            }
            at += piece.len();
        }
        Ok(())
    }
}
