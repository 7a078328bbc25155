//! A pseudo-random byte stream with random access.
//!
//! The stream is a sequence of 64-bit little-endian words. Word `i` is the SplitMix64 mix of the seed plus `i + 1`
//! times the golden ratio (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). The mix
//! is bijective, so no word occurs twice in a stream: lost, repeated or moved data differs at once.

use super::Mismatch;

/// 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Size of a word in bytes.
const WORD: usize = 8;

/// The stream of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// Creates the stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Returns the stream of the other direction of the same connection.
    pub fn reversed(self) -> Self {
        Self {
            seed: self.seed ^ 0x5555_aaaa_5555_aaaa,
        }
    }

    fn word(self, index: u64) -> u64 {
        let mut word = self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Returns the byte at this offset.
    fn byte(self, offset: u64) -> u8 {
        let [index, within] = [offset / WORD as u64, offset % WORD as u64];
        (self.word(index) >> (8 * within)) as u8
    }

    /// Returns the number of bytes before the first whole word of a buffer at this offset.
    fn head(offset: u64, length: usize) -> usize {
        let past = (offset % WORD as u64) as usize;
        ((WORD - past) % WORD).min(length)
    }

    /// Fills a buffer with the bytes of the stream at this offset.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let (head, rest) = buffer.split_at_mut(Self::head(offset, buffer.len()));
        for (position, byte) in (offset..).zip(head.iter_mut()) {
            *byte = self.byte(position);
        }
        let start = offset + head.len() as u64;
        let (words, tail) = rest.as_chunks_mut::<WORD>();
        for (index, word) in (start / WORD as u64..).zip(words.iter_mut()) {
            *word = self.word(index).to_le_bytes();
        }
        let start = start + (words.len() * WORD) as u64;
        for (position, byte) in (start..).zip(tail) {
            *byte = self.byte(position);
        }
    }

    /// Compares a buffer with the bytes of the stream at this offset.
    ///
    /// # Errors
    ///
    /// Fails with the first differing byte.
    pub fn verify(self, offset: u64, buffer: &[u8]) -> Result<(), Mismatch> {
        let (head, rest) = buffer.split_at(Self::head(offset, buffer.len()));
        self.verify_bytes(offset, head)?;
        let start = offset + head.len() as u64;
        let (words, tail) = rest.as_chunks::<WORD>();
        for (index, word) in (start / WORD as u64..).zip(words) {
            if u64::from_le_bytes(*word) != self.word(index) {
                self.verify_bytes(index * WORD as u64, word)?;
            }
        }
        self.verify_bytes(start + (words.len() * WORD) as u64, tail)
    }

    fn verify_bytes(self, offset: u64, bytes: &[u8]) -> Result<(), Mismatch> {
        for (offset, &found) in (offset..).zip(bytes) {
            let expected = self.byte(offset);
            if expected != found {
                return Err(Mismatch {
                    offset,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Pattern::new(42).fill(offset, &mut bytes);
        bytes
    }

    #[test]
    fn pieces_are_parts_of_the_whole() {
        let whole = sample(0, 4096);
        for offset in 0..40 {
            for length in [0, 1, 5, 7, 8, 9, 15, 16, 17, 1000] {
                let piece = sample(offset as u64, length);
                assert_eq!(piece, whole[offset..offset + length], "offset {offset} length {length}");
                Pattern::new(42).verify(offset as u64, &piece).unwrap();
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found_at_its_offset() {
        let mut bytes = sample(1003, 70);
        for index in 0..bytes.len() {
            for bit in 0..8 {
                bytes[index] ^= 1 << bit;
                let mismatch = Pattern::new(42).verify(1003, &bytes).unwrap_err();
                assert_eq!(mismatch.offset, 1003 + index as u64);
                assert_eq!(mismatch.expected ^ mismatch.found, 1 << bit);
                bytes[index] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn lost_and_repeated_data_is_found() {
        let bytes = sample(0, 200_000);
        for lost in [1, 7, 8, 32, 4096, 65504] {
            let mut short = bytes.clone();
            short.drain(10_000..10_000 + lost);
            let mismatch = Pattern::new(42).verify(0, &short).unwrap_err();
            assert!((10_000..10_016).contains(&mismatch.offset), "{mismatch}");
        }
        let mut repeated = bytes[..65504].to_vec();
        repeated.extend_from_slice(&bytes[..65504]);
        assert!((65504..65520).contains(&Pattern::new(42).verify(0, &repeated).unwrap_err().offset));
    }

    #[test]
    fn zeros_and_other_seeds_are_found() {
        assert!(Pattern::new(42).verify(0, &[0; 64]).is_err());
        assert!(Pattern::new(43).verify(0, &sample(0, 64)).is_err());
        assert!(Pattern::new(42).reversed().verify(0, &sample(0, 64)).is_err());
    }
}
