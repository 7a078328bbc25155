//! Bytes become the virtqueues of a hostile guest, and messages of its VMM: `scripts/fuzz rings`.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    common::ring_driver::run(input);
});
