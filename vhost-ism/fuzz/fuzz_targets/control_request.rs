//! Interprets the input as control requests, resets and doorbells of three guests. Run it with
//! `scripts/fuzz control_request`.

#![no_main]

#[path = "../../tests/common/control_driver.rs"]
mod control_driver;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    control_driver::Driver::run(input);
});
