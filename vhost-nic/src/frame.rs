//! Processing of the bytes of a frame: parsing headers, filling in and verifying checksums, segmentation, hashing.
//!
//! Pure functions on byte slices, total on any input: a guest can send any bytes as a frame.

pub mod checksum;
pub mod display;
pub mod mac;
pub mod rss;
pub mod segmentation;
pub mod view;
