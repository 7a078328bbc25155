//! The bytes of a fuzzer, used up one after the other: each decides something. And bytes for machines without one.

/// Bytes that decide.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; none if all are used up.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number below `below`.
    pub fn index(&mut self, below: usize) -> Option<usize> {
        let [high, low] = [self.byte()?, self.byte()?];
        Some(usize::from(u16::from_be_bytes([high, low])) % below.max(1))
    }

    /// One of a list.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = usize::from(self.byte()?) % of.len();
        Some(of[index])
    }

    /// Four bytes.
    pub fn word(&mut self) -> Option<u32> {
        let (&word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(word))
    }

    /// Changes a few bytes, or most often none.
    pub fn damage(&mut self, bytes: &mut [u8]) -> Option<()> {
        for _ in 0..self.byte()?.saturating_sub(200) % 5 {
            let at = self.index(bytes.len())?;
            let value = self.byte()?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        Some(())
    }
}

/// A generator of reproducible bytes (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next bytes, a multiple of eight of them.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}
