//! Bytes become a record that is replayed: `cargo +nightly fuzz run records tests/records` in vhost-nic, with the kept
//! records as seeds.

#![no_main]

use std::io::Cursor;

use vhost_nic::replay::replay;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = replay(Cursor::new(input.to_vec()), Some(1 << 16));
});
