//! Inline bytes: data that a WQE or a response brings along.

/// Bytes that are kept without an allocation: short inline data, the result of an atomic.
const SHORT: usize = 64;

/// A string of bytes that is filled once per message, and whose place is used again. The general containers take twice
/// the instructions for it.
#[derive(Debug, Clone)]
pub struct InlineBytes {
    length: usize,
    short: [u8; SHORT],
    /// The bytes, once they are more than [`SHORT`].
    long: Vec<u8>,
}

impl InlineBytes {
    /// Creates an empty string.
    pub const fn new() -> Self {
        Self {
            length: 0,
            short: [0; SHORT],
            long: Vec::new(),
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Removes all bytes.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        match self.short.get_mut(self.length..end) {
            Some(place) => place.copy_from_slice(bytes),
            None => self.push_long(bytes),
        }
        self.length = end;
    }

    #[cold]
    fn push_long(&mut self, bytes: &[u8]) {
        if self.length <= SHORT {
            self.long.clear();
            self.long.extend_from_slice(&self.short[..self.length]);
        }
        self.long.extend_from_slice(bytes);
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.short.get(..self.length).unwrap_or(&self.long)
    }
}

impl Default for InlineBytes {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_that_were_appended() {
        let mut place = InlineBytes::new();
        for lengths in [
            &[][..],
            &[64],
            &[63, 1],
            &[64, 1],
            &[65],
            &[30, 0, 34, 1, 100],
            &[200],
            &[3],
        ] {
            place.clear();
            let mut expected = Vec::new();
            for (at, length) in lengths.iter().enumerate() {
                let bytes: Vec<u8> = (0..*length).map(|byte| byte as u8 ^ (at as u8) << 5).collect();
                place.push(&bytes);
                expected.extend_from_slice(&bytes);
                assert_eq!(place.as_slice(), expected);
            }
            assert_eq!((place.len(), place.is_empty()), (expected.len(), expected.is_empty()));
        }
    }
}
