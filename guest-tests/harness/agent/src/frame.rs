//! Framing: a header with its own checksum, then the payload.
//!
//! ```text
//! 0   u32  magic
//! 4   u32  epoch     the session this frame belongs to, 0 outside any session
//! 8   u32  channel
//! 12  u32  kind
//! 16  u32  length    of the payload
//! 20  u32  crc32     of bytes 0 to 19
//! 24  payload
//! ```
//!
//! All integers are little-endian. A reboot or a reopened connection can truncate a frame, so a reader can start
//! anywhere in the stream: [`Decoder`] skips to the next header with a valid checksum. A writer starts with
//! [`PREAMBLE`] zero bytes: they complete a truncated frame, which would otherwise swallow the next ones. Zeros between
//! frames are ignored.

use std::marker::PhantomData;

use thiserror::Error;

/// First four bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"gTf1");

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 24;

/// Maximum length of a payload in bytes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// Number of zeros before the first frame; longer than all frames but the largest requests.
pub const PREAMBLE: usize = 32 * 1024;

/// Message of a frame, in either direction of the protocol.
pub trait Body: Sized {
    /// Returns the kind in the header, which determines the format of the payload.
    fn kind(&self) -> u32;

    /// Serializes the payload.
    fn payload(&self) -> Vec<u8>;

    /// Parses a payload of the given kind.
    fn parse(kind: u32, payload: &[u8]) -> Result<Self, BadBody>;
}

/// An invalid payload in an intact frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadBody {
    /// A kind that this direction does not have.
    #[error("no message of kind {0:#x} exists in this direction")]
    UnknownKind(u32),
    /// A payload that does not match its kind.
    #[error("the payload of a message of kind {kind:#x} is malformed: {reason}")]
    Malformed {
        /// Kind of the message.
        kind: u32,
        /// Defect of the payload.
        reason: String,
    },
}

/// A message on a channel of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<B> {
    /// Epoch of the session; 0 outside any session.
    pub epoch: u32,
    /// Channel number; 0 for messages about the connection itself.
    pub channel: u32,
    /// The message.
    pub body: B,
}

impl<B: Body> Frame<B> {
    /// Serializes the frame.
    ///
    /// # Panics
    ///
    /// Panics if the payload is longer than [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Vec<u8> {
        let payload = self.body.payload();
        assert!(payload.len() <= MAX_PAYLOAD, "a frame's payload is bounded");
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        for word in [MAGIC, self.epoch, self.channel, self.body.kind(), payload.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes
    }
}

/// A defect of the stream, reported by [`Decoder`] in place of a frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Bytes outside any frame were skipped.
    #[error("skipped {0} bytes that belong to no frame")]
    Skipped(usize),
    /// The payload of an intact frame was invalid.
    #[error("invalid message on channel {channel}")]
    Body {
        /// Epoch of the frame.
        epoch: u32,
        /// Channel of the frame.
        channel: u32,
        /// Defect of the payload.
        source: BadBody,
    },
}

/// Parses a byte stream into frames.
#[derive(Debug)]
pub struct Decoder<B> {
    buffer: Vec<u8>,
    /// Start of the unprocessed bytes in `buffer`.
    start: usize,
    skipped: usize,
    body: PhantomData<fn() -> B>,
}

impl<B> Default for Decoder<B> {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            skipped: 0,
            body: PhantomData,
        }
    }
}

impl<B: Body> Decoder<B> {
    /// Creates a decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next frame, or `None` until more bytes arrive.
    pub fn next_frame(&mut self) -> Option<Result<Frame<B>, FrameError>> {
        loop {
            let rest = &self.buffer[self.start..];
            let Some(header) = Header::read(rest) else {
                if rest.len() < HEADER_LEN && could_start_frame(rest) {
                    return self.report_skipped();
                }
                self.start += 1;
                self.skipped += usize::from(rest[0] != 0);
                continue;
            };
            if self.skipped > 0 {
                return self.report_skipped();
            }
            let payload = rest.get(HEADER_LEN..HEADER_LEN + header.length)?;
            let parsed = B::parse(header.kind, payload);
            self.start += HEADER_LEN + header.length;
            return Some(match parsed {
                Ok(body) => Ok(Frame {
                    epoch: header.epoch,
                    channel: header.channel,
                    body,
                }),
                Err(source) => Err(FrameError::Body {
                    epoch: header.epoch,
                    channel: header.channel,
                    source,
                }),
            });
        }
    }

    fn report_skipped(&mut self) -> Option<Result<Frame<B>, FrameError>> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            skipped => Some(Err(FrameError::Skipped(skipped))),
        }
    }
}

struct Header {
    epoch: u32,
    channel: u32,
    kind: u32,
    length: usize,
}

impl Header {
    /// Parses the header at the start of `bytes`, if it is complete and valid.
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let word = |index: usize| {
            let at = index * 4;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let length = word(4) as usize;
        if word(0) != MAGIC || word(5) != crc32fast::hash(&bytes[..HEADER_LEN - 4]) || length > MAX_PAYLOAD {
            return None;
        }
        Some(Self {
            epoch: word(1),
            channel: word(2),
            kind: word(3),
            length,
        })
    }
}

/// Returns whether `bytes`, shorter than a header, can be the start of one.
fn could_start_frame(bytes: &[u8]) -> bool {
    let magic = MAGIC.to_le_bytes();
    let known = bytes.len().min(magic.len());
    bytes[..known] == magic[..known]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, SpawnRequest};

    fn stdin(channel: u32, data: &[u8]) -> Frame<Request> {
        Frame {
            epoch: 7,
            channel,
            body: Request::Data(data.to_vec()),
        }
    }

    fn decode_all(decoder: &mut Decoder<Request>) -> Vec<Result<Frame<Request>, FrameError>> {
        std::iter::from_fn(|| decoder.next_frame()).collect()
    }

    #[test]
    fn frames_survive_any_split_of_the_stream() {
        let frames = vec![
            stdin(1, b"hello"),
            stdin(2, b""),
            Frame {
                epoch: 7,
                channel: 3,
                body: Request::Spawn(SpawnRequest {
                    argv: vec!["true".into()],
                    ..SpawnRequest::default()
                }),
            },
            stdin(4, &[0x67; 100]),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for step in [1, 2, 3, 5, 23, 24, 25, bytes.len()] {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                seen.extend(decode_all(&mut decoder));
            }
            let seen: Vec<_> = seen.into_iter().map(Result::unwrap).collect();
            assert_eq!(seen, frames, "in pieces of {step}");
        }
    }

    #[test]
    fn garbage_is_skipped_and_reported_once() {
        let mut decoder = Decoder::new();
        decoder.push(b"garbage gTf gTf1 more");
        decoder.push(&stdin(1, b"after").encode());
        assert_eq!(
            decode_all(&mut decoder),
            vec![Err(FrameError::Skipped(21)), Ok(stdin(1, b"after"))]
        );
    }

    #[test]
    fn a_frame_cut_short_costs_no_more_than_what_follows_it_closely() {
        let cut = stdin(1, &[9; 50]).encode();
        let mut decoder = Decoder::new();
        decoder.push(&cut[..30]);
        for n in 2..6 {
            decoder.push(&stdin(n, &[n as u8; 60]).encode());
        }
        let seen = decode_all(&mut decoder);
        // The cut frame swallows 44 bytes of its successor as payload, the rest of that one is skipped.
        let good: Vec<u32> = seen.iter().flatten().map(|frame| frame.channel).collect();
        assert_eq!(good, [1, 3, 4, 5]);
        assert!(seen.contains(&Err(FrameError::Skipped(40))), "{seen:?}");
    }

    #[test]
    fn the_preamble_ends_a_frame_cut_short() {
        let cut = stdin(1, &[9; 31 * 1024]).encode();
        for at in [0, 1, HEADER_LEN - 1, HEADER_LEN, 1000, cut.len() - 1] {
            let mut decoder = Decoder::new();
            decoder.push(&cut[..at]);
            decoder.push(&[0; PREAMBLE]);
            decoder.push(&stdin(2, b"y").encode());
            let seen = decode_all(&mut decoder);
            assert_eq!(seen.last(), Some(&Ok(stdin(2, b"y"))), "cut at {at}");
        }
        let mut decoder = Decoder::new();
        decoder.push(&[0; PREAMBLE]);
        decoder.push(&stdin(2, b"y").encode());
        assert_eq!(decode_all(&mut decoder), vec![Ok(stdin(2, b"y"))]);
    }

    #[test]
    fn a_flipped_bit_in_the_header_is_noticed() {
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = stdin(1, b"x").encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            decoder.push(&stdin(2, b"y").encode());
            let seen = decode_all(&mut decoder);
            assert_eq!(seen.last(), Some(&Ok(stdin(2, b"y"))), "bit {bit}");
            assert!(!seen.contains(&Ok(stdin(1, b"x"))), "bit {bit}");
        }
    }

    #[test]
    fn a_bad_payload_is_reported_with_its_channel() {
        let mut decoder = Decoder::<Request>::new();
        let mut bytes = Vec::new();
        for word in [MAGIC, 7, 12, 0x4242, 0] {
            bytes.extend_from_slice(&u32::to_le_bytes(word));
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        decoder.push(&bytes);
        assert_eq!(
            decoder.next_frame(),
            Some(Err(FrameError::Body {
                epoch: 7,
                channel: 12,
                source: BadBody::UnknownKind(0x4242)
            }))
        );
        assert_eq!(decoder.next_frame(), None);
    }

    #[test]
    fn an_overlong_frame_is_not_believed() {
        let mut bytes = Vec::new();
        for word in [MAGIC, 7, 1, 1, u32::MAX] {
            bytes.extend_from_slice(&u32::to_le_bytes(word));
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        decoder.push(&stdin(2, b"y").encode());
        let seen = decode_all(&mut decoder);
        assert!(matches!(seen[..], [Err(FrameError::Skipped(_)), Ok(_)]), "{seen:?}");
    }
}
