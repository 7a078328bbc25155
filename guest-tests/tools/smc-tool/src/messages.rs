//! Small messages in one direction: each starts with its number; a special number marks the last one.

use std::io::Read;

use serde::Serialize;

use crate::data::Mismatch;
use crate::stream::{TransferError, read_some};

/// Size of the number at the start of a message, and of the smallest message.
pub const NUMBER: usize = 8;

/// Number that marks the last message.
const LAST: u64 = u64::MAX;

/// Minimum size of the read buffer.
const CHUNK: usize = 256 * 1024;

/// Result of receiving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Bytes received, the last message included.
    pub bytes: u64,
    /// The first wrong number among those checked.
    pub mismatch: Option<Mismatch>,
}

/// Sets the number of a message; `None` marks the last one.
pub fn stamp(message: &mut [u8], number: Option<u64>) {
    message[..NUMBER].copy_from_slice(&number.unwrap_or(LAST).to_le_bytes());
}

/// Receives messages of this size up to the last one.
///
/// To stay cheap, each read checks only the number of the newest whole message, which reveals any earlier loss or
/// repetition.
///
/// # Errors
///
/// Fails when the connection ends or times out.
pub fn receive(mut stream: impl Read, size: usize) -> Result<Received, TransferError> {
    let size = size.max(NUMBER);
    // Starts with the incomplete message of the previous reads.
    let mut buffer = vec![0; CHUNK.max(2 * size)];
    let mut left_over = 0;
    let mut received = Received::default();
    loop {
        let length = read_some(&mut stream, &mut buffer[left_over..], received.bytes)?;
        received.bytes += length as u64;
        let filled = left_over + length;
        let whole = filled / size * size;
        left_over = filled - whole;
        if whole > 0 {
            let number = newest_number(&buffer[..whole], size);
            let index = (received.bytes - left_over as u64) / size as u64 - 1;
            if number == LAST {
                return Ok(received);
            }
            if number != index && received.mismatch.is_none() {
                received.mismatch = Some(difference(index, number, size));
            }
            buffer.copy_within(whole..filled, 0);
        }
    }
}

fn newest_number(messages: &[u8], size: usize) -> u64 {
    let mut number = [0; NUMBER];
    let start = messages.len() - size;
    number.copy_from_slice(&messages[start..start + NUMBER]);
    u64::from_le_bytes(number)
}

/// Locates the first byte in which two numbers differ.
fn difference(expected: u64, found: u64, size: usize) -> Mismatch {
    let [old, new] = [expected.to_le_bytes(), found.to_le_bytes()];
    let position = (0..NUMBER)
        .find(|&position| old[position] != new[position])
        .unwrap_or(0);
    Mismatch {
        offset: expected * size as u64 + position as u64,
        expected: old[position],
        found: new[position],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn messages(numbers: impl IntoIterator<Item = Option<u64>>, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in numbers {
            let mut message = vec![0xaa; size];
            stamp(&mut message, number);
            bytes.extend(message);
        }
        bytes
    }

    /// A reader that returns fragments of odd sizes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn counts_up_to_the_last_message() {
        for size in [8, 64, 100] {
            let bytes = messages((0..50).map(Some).chain([None]), size);
            for piece in [1, 7, size, 3 * size + 1, 1 << 20] {
                let received = receive(Pieces(&bytes, piece), size).unwrap();
                assert_eq!(
                    received,
                    Received {
                        bytes: 51 * size as u64,
                        mismatch: None
                    }
                );
            }
        }
    }

    #[test]
    fn lost_messages_are_found() {
        let bytes = messages((0..10).chain(11..20).map(Some).chain([None]), 64);
        let received = receive(Pieces(&bytes, 64), 64).unwrap();
        assert_eq!(
            received.mismatch,
            Some(Mismatch {
                offset: 640,
                expected: 10,
                found: 11
            })
        );
    }

    #[test]
    fn early_end_is_an_error() {
        let bytes = messages((0..10).map(Some), 64);
        assert!(receive(Pieces(&bytes, 64), 64).is_err());
    }
}
