//! SMC inside a guest: what the kernel says about it over netlink, and workloads that check every byte they move.

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
