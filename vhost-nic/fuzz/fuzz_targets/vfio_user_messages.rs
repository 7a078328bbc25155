//! Bytes become the messages of a vfio-user client: `scripts/fuzz vfio_user_messages`.

#![no_main]

#[path = "../../pci-function/tests/common/mod.rs"]
mod common;
#[path = "../../pci-function/tests/vfio_user/fuzz_driver.rs"]
mod fuzz_driver;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz_driver::run(input);
});
