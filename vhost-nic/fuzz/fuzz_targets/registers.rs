//! Bytes become accesses to the BAR and to the configuration space: `scripts/fuzz registers`.

#![no_main]

#[path = "../../tests/common/nic.rs"]
mod nic;

use mlx5_test_driver::node::Node;
use vhost_nic::net::Switch;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let switch = Switch::new();
    let nodes = [1, 2].map(|number| Node::open(nic::machine(&switch, number), number));
    mlx5_test_driver::fuzz::registers::run(nodes, input);
});
