//! Bytes become WQEs of a hostile guest: `cargo +nightly fuzz run wqes` in vhost-nic.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    common::rdma_fuzz::wqes::run(input);
});
