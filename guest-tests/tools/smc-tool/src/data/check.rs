//! Verification of received data.

use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Verification of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// None, for measurements of throughput.
    None,
    /// Every byte against the pattern at its offset.
    Pattern,
    /// Every byte against the pattern, and SHA-256 over the whole stream at both ends.
    Hash,
}

impl Check {
    /// Returns the number on the wire.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Pattern => 1,
            Self::Hash => 2,
        }
    }

    /// Returns the check with this number on the wire.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Pattern),
            2 => Some(Self::Hash),
            _ => None,
        }
    }
}

/// SHA-256 of a stream; zeros unless [`Check::Hash`] was requested.
pub type Digest = [u8; 32];

/// Formats a digest as hexadecimal digits.
pub(crate) fn hexadecimal(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes a stream if requested.
///
/// SHA-256 is the fastest strong hash in an emulated guest, whose CPU has instructions for it: twice as fast as BLAKE3
/// there.
#[derive(Debug, Default)]
pub(crate) struct Hasher(Option<Sha256>);

impl Hasher {
    /// Creates a hasher for this check.
    pub(crate) fn new(check: Check) -> Self {
        Self((check == Check::Hash).then(Sha256::new))
    }

    /// Adds the next bytes of the stream.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// Returns the digest of all bytes.
    pub(crate) fn digest(self) -> Digest {
        self.0.map_or([0; 32], |hasher| hasher.finalize().into())
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
        let digest = hexadecimal(&hasher.digest());
        assert_eq!(
            digest,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn numbers_come_back() {
        for check in [Check::None, Check::Pattern, Check::Hash] {
            assert_eq!(Check::from_number(check.number()), Some(check));
        }
        assert_eq!(Check::from_number(3), None);
    }
}
