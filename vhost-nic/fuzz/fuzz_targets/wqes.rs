//! Bytes become WQEs of a hostile guest: `scripts/fuzz wqes`.

#![no_main]

#[path = "../../tests/common/nic.rs"]
mod nic;

use mlx5_test_driver::node::Node;
use vhost_nic::net::Switch;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let switch = Switch::new();
    let nodes = [1, 2].map(|number| Node::open(nic::machine(&switch, number), number));
    mlx5_test_driver::fuzz::wqes::run(nodes, input);
});
