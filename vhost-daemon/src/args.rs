//! The flags every daemon takes.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;

/// Sockets to listen on and what else is the same in every daemon. Whether a socket is required is the daemon's to say,
/// by a group over `socket_path`, `fd`, `print_capabilities` and its own ways to name one.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// Listen for a guest's VMM on this socket; once per guest.
    #[arg(long, value_name = "PATH")]
    pub socket_path: Vec<PathBuf>,

    /// Listen for a guest's VMM on this inherited listening socket; once per guest.
    #[arg(long, value_name = "FD")]
    pub fd: Vec<RawFd>,

    /// Write the counters as JSON to whoever connects to this socket.
    #[arg(long, value_name = "PATH")]
    pub stats_socket: Option<PathBuf>,

    /// Print what this back-end can do as JSON (vhost-user back-end conventions) and exit.
    #[arg(long, exclusive = true)]
    pub print_capabilities: bool,
}

/// A number of bytes: digits, and K, M or G for a multiple of 2^10, 2^20 or 2^30.
pub fn parse_size(text: &str) -> Result<u64, String> {
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
        .ok_or_else(|| "a size is a number of bytes, or of K, M or G".to_owned())
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
