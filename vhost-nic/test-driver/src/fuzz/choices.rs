//! The input of a fuzz driver, consumed byte by byte: each decides something.

/// Input bytes that remain. Methods return `None` once these are used up.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Starts at the first byte of an input.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number less than `below`, or 0 if that is 0.
    pub fn index(&mut self, below: usize) -> Option<usize> {
        let [high, low] = [self.byte()?, self.byte()?];
        Some(usize::from(u16::from_be_bytes([high, low])) % below.max(1))
    }

    /// An element of a list.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = usize::from(self.byte()?) % of.len();
        Some(of[index])
    }

    /// The next four bytes.
    pub fn word(&mut self) -> Option<u32> {
        let (&word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(word))
    }

    /// Changes up to four bytes; in most cases none.
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
