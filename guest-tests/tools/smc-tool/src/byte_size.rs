//! Sizes on the command line: `4096`, `64K`, `100M`, `1G`, in powers of 1024.
//!
//! `vhost_daemon::args::parse_size` accepts the same grammar, but would bring the vhost-user stack into a guest's tool;
//! the crates `parse-size` and `bytesize` accept fractions and take `K` for 1000.

/// A malformed size.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a size: a whole number, optionally followed by K, M or G")]
pub struct BadByteSize(String);

/// Parses a size.
///
/// # Errors
///
/// Fails when the text is not a size or exceeds 64 bits.
pub fn parse(text: &str) -> Result<u64, BadByteSize> {
    let bad = || BadByteSize(text.to_owned());
    let (digits, shift) = match text.as_bytes() {
        [digits @ .., b'K' | b'k'] => (digits, 10),
        [digits @ .., b'M' | b'm'] => (digits, 20),
        [digits @ .., b'G' | b'g'] => (digits, 30),
        digits => (digits, 0),
    };
    let number: u64 = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(bad)?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Parses the size of a buffer: at least one byte, at most 1 GiB.
///
/// # Errors
///
/// Fails when the text is not a size, or out of range.
pub fn parse_block(text: &str) -> Result<usize, BadByteSize> {
    match usize::try_from(parse(text)?) {
        Ok(size @ 1..=0x4000_0000) => Ok(size),
        _ => Err(BadByteSize(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_powers_of_1024() {
        assert_eq!(parse("4096").unwrap(), 4096);
        assert_eq!(parse("64K").unwrap(), 65536);
        assert_eq!(parse("100M").unwrap(), 104_857_600);
        assert_eq!(parse("1g").unwrap(), 1 << 30);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "K", "1.5M", "-1", "1T", "99999999999G"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse_block("0").is_err());
        assert!(parse_block("2G").is_err());
    }
}
