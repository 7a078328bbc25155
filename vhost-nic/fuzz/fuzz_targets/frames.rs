//! Bytes become frames to parse, complete, segment, hash and forward: `scripts/fuzz frames`.

#![no_main]

#[path = "../../tests/common/raw_frames.rs"]
mod raw_frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    raw_frames::run(input);
});
