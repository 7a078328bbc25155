//! Bytes become commands to the firmware, with frames and doorbells between them: `scripts/fuzz commands`.

#![no_main]

#[path = "../../tests/common/nic.rs"]
mod nic;

use vhost_nic::net::Switch;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mlx5_test_driver::fuzz::commands::run(nic::machine(&Switch::new(), 1), input);
});
