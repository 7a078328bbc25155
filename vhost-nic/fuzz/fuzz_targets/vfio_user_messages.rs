//! Bytes become the messages of a vfio-user client: `cargo +nightly fuzz run vfio_user_messages` in vhost-nic.

#![no_main]

#[path = "../../pci-function/tests/common/mod.rs"]
mod common;
#[path = "../../pci-function/tests/vfio_user/fuzz_driver.rs"]
mod fuzz_driver;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz_driver::run(input);
});
