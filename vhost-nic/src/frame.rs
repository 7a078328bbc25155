//! What the NIC does to the bytes of a frame: find its headers, fill in and verify checksums, split it, hash it.
//!
//! Pure functions on byte slices, total on any bytes: what a guest calls a frame can be anything.

pub mod checksum;
pub mod mac;
pub mod rss;
pub mod segmentation;
pub mod view;
