//! Bytes become commands to the firmware, and frames between them: `cargo +nightly fuzz run commands` in vhost-nic.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    common::command_fuzz::run(input);
});
