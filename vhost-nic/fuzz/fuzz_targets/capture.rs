//! Bytes become frames that are captured: `scripts/fuzz capture`.

#![no_main]

#[path = "../../tests/common/captured_frames.rs"]
mod captured_frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    captured_frames::run(input);
});
