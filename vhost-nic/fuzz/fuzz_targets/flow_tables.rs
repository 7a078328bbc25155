//! Bytes become flow tables of a hostile guest, and frames of a peer: `scripts/fuzz flow_tables`.

#![no_main]

#[path = "../../tests/common/nic.rs"]
mod nic;

use vhost_nic::net::Switch;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let switch = Switch::new();
    mlx5_test_driver::fuzz::flow_tables::run([1, 2].map(|number| nic::machine(&switch, number)), input);
});
