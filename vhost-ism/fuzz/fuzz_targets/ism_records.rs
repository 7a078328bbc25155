//! Bytes become a record that is replayed: `scripts/fuzz ism_records`, with the kept records as
//! seeds. Their events are changed before compression.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use vhost_ism::replay::replay;

#[path = "../../../vhost-daemon/fuzz/mutation.rs"]
mod mutation;

fuzz_target!(|input: &[u8]| {
    let _ = replay(Cursor::new(input.to_vec()), Some(1 << 16));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, _seed: u32| {
    mutation::mutate(data, size, max_size, libfuzzer_sys::fuzzer_mutate)
});
