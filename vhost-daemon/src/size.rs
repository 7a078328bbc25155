//! Sizes on the command line.
//!
//! `smc-tool` has its own parser for the same syntax: this crate would bring the vhost crates into a tool that is
//! copied into guests.

/// A malformed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a size is a number of bytes, optionally followed by K, M or G")]
pub struct InvalidSize;

/// Parses a number of bytes: digits, optionally followed by K, M or G for a multiple of 2^10, 2^20 or 2^30.
pub fn parse_size(text: &str) -> Result<u64, InvalidSize> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or(InvalidSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16K"), Ok(16 << 10));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert!(parse_size("999999999999G").is_err());
        assert!(parse_size("-1").is_err());
        assert!(parse_size("M").is_err());
        assert!(parse_size("").is_err());
    }
}
