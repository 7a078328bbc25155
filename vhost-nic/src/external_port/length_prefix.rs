//! Frames in a stream of bytes: each follows its length, 4 bytes, big-endian (QEMU's `-netdev stream` and `socket`,
//! net/stream.c and net/net.c, `net_fill_rstate`).

use thiserror::Error;

/// Longest frame in bytes: QEMU's `NET_BUFSIZE`.
pub const MAX_LENGTH: usize = 4096 + 65536;
/// Length of the prefix in bytes.
const PREFIX: usize = 4;
/// Consumed bytes that are left before the buffer is moved.
const COMPACT: usize = 64 << 10;

/// A frame longer than [`MAX_LENGTH`]: what follows cannot be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame of {0} bytes")]
pub struct OversizedFrame(pub u32);

/// Bytes of a stream that were not taken as frames. The memory is limited by what is pushed between two calls of
/// [`next_frame`](Self::next_frame), plus one frame.
#[derive(Debug, Default)]
pub struct LengthPrefixed {
    bytes: Vec<u8>,
    taken: usize,
}

impl LengthPrefixed {
    /// Appends bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken >= COMPACT {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next frame if it is complete.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, OversizedFrame> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        if length as usize > MAX_LENGTH {
            return Err(OversizedFrame(length));
        }
        let Some(frame) = rest.get(..length as usize) else {
            return Ok(None);
        };
        self.taken += PREFIX + frame.len();
        Ok(Some(frame))
    }
}

/// Appends a frame and its prefix. Frames of the switch are shorter than 2^32 bytes.
pub(super) fn append(frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| append(frame, &mut bytes));
        bytes
    }

    fn frames(parser: &mut LengthPrefixed) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| parser.next_frame().unwrap().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn frames_come_out_wherever_the_stream_is_cut() {
        let sent: [&[u8]; 4] = [b"first", b"", &[7; 300], b"x"];
        let bytes = stream(&sent);
        assert_eq!(bytes[..9], *b"\0\0\0\x05first");
        for step in 1..bytes.len() {
            let (mut parser, mut got) = (LengthPrefixed::default(), Vec::new());
            for part in bytes.chunks(step) {
                parser.push(part);
                got.extend(frames(&mut parser));
            }
            assert_eq!(got, sent, "cut every {step} bytes");
        }
    }

    #[test]
    fn an_endless_length_is_refused_and_the_longest_is_not() {
        let mut parser = LengthPrefixed::default();
        parser.push(&stream(&[&vec![1; MAX_LENGTH]]));
        assert_eq!(parser.next_frame().unwrap().map(<[u8]>::len), Some(MAX_LENGTH));
        for length in [MAX_LENGTH as u32 + 1, u32::MAX] {
            let mut parser = LengthPrefixed::default();
            parser.push(&length.to_be_bytes());
            assert_eq!(parser.next_frame(), Err(OversizedFrame(length)));
        }
    }

    #[test]
    fn the_buffer_does_not_grow_with_the_stream() {
        let (mut parser, bytes) = (LengthPrefixed::default(), stream(&[&[1; 1500]]));
        parser.push(&bytes[..700]);
        for _ in 0..1000 {
            // The buffer never ends with a frame: something is always left.
            parser.push(&bytes[700..]);
            parser.push(&bytes[..700]);
            assert_eq!(frames(&mut parser), [[1; 1500]]);
        }
        assert!(parser.bytes.len() < COMPACT + 2 * bytes.len(), "{}", parser.bytes.len());
    }
}
