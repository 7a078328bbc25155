//! How much of the received data is checked.

use clap::ValueEnum;
use serde::Serialize;

/// How data is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Not at all, for measurements of speed.
    None,
    /// Every byte against the pattern at its offset.
    Pattern,
    /// Every byte against the pattern, and BLAKE3 over the whole stream at both ends.
    Hash,
}

impl Check {
    /// The number on the wire.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Pattern => 1,
            Self::Hash => 2,
        }
    }

    /// The check with this number on the wire.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Pattern),
            2 => Some(Self::Hash),
            _ => None,
        }
    }
}

/// The digest of a stream; zero unless [`Check::Hash`] was asked for.
pub type Digest = [u8; 32];

/// Hashes a stream if that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Hasher(Option<Box<blake3::Hasher>>);

impl Hasher {
    /// A hasher for this kind of check.
    pub(crate) fn new(check: Check) -> Self {
        Self((check == Check::Hash).then(Box::default))
    }

    /// Adds the next bytes of the stream.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// The digest of all bytes so far.
    pub(crate) fn digest(&self) -> Digest {
        self.0.as_ref().map_or([0; 32], |hasher| hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hash_has_a_digest() {
        let mut hasher = Hasher::new(Check::Pattern);
        hasher.update(b"abc");
        assert_eq!(hasher.digest(), [0; 32]);
        let mut hasher = Hasher::new(Check::Hash);
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.digest(), *blake3::hash(b"abc").as_bytes());
    }

    #[test]
    fn numbers_come_back() {
        for check in [Check::None, Check::Pattern, Check::Hash] {
            assert_eq!(Check::from_number(check.number()), Some(check));
        }
        assert_eq!(Check::from_number(3), None);
    }
}
