//! Bytes become packets of a hostile peer: `cargo +nightly fuzz run packets` in vhost-nic.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    common::rdma_fuzz::packets::run(input);
});
