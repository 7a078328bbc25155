//! SMC inside a guest: its state in the kernel over netlink, and workloads that check every byte they move.

#![forbid(unsafe_code)]

pub mod bar_scan;
pub mod byte_size;
pub mod client;
pub mod data;
pub mod dibs;
pub mod fallback_reason;
pub mod messages;
pub mod monotonic;
pub mod netlink;
pub mod preload;
pub mod server;
pub mod stream;
pub mod wire;
