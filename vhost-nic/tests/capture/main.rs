//! Captures of what NICs exchange, and what Wireshark's dissectors make of them. See `mlx5_test_driver`.

#[path = "../common/nic.rs"]
mod nic;

mod commands;
mod comments;
mod dissected;
mod exchange;
mod invariant_crc;
