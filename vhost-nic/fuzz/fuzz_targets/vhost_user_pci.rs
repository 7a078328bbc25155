//! Bytes become the virtqueues of a User Mode Linux guest, and messages of its front-end: `scripts/fuzz
//! vhost_user_pci`.

#![no_main]

#[path = "../../pci-function/tests/common/mod.rs"]
mod common;
#[path = "../../pci-function/tests/vhost_user_pci/driver.rs"]
mod driver;
#[path = "../../pci-function/tests/vhost_user_pci/fuzz_driver.rs"]
mod fuzz_driver;
#[path = "../../pci-function/tests/vhost_user_pci/host.rs"]
mod host;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fuzz_driver::run(input);
});
