//! Fuzz drivers on random bytes.

use std::path::Path;

use mlx5_test_driver::fuzz::{Driver, Tally, iterations, key_graphs, on_kept_inputs, on_random_bytes, wqes};
use mlx5_test_driver::node::Node;
use vhost_nic::net::Switch;

use crate::nic::machine;
use crate::packets;

/// Bytes of an input: more than a run consumes.
const INPUT: usize = 1 << 14;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

/// Runs an input of WQEs on two guests of a new switch.
fn run_wqes(input: &[u8]) -> Tally {
    let switch = Switch::new();
    let nodes = [1, 2].map(|number| Node::open(machine(&switch, number), number));
    wqes::run(nodes, input)
}

#[test]
fn twenty_thousand_wqes() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(20_000), run_wqes);
    assert!(tally.succeeded * 40 > tally.made, "too few succeed: {tally:?}");
    assert!(tally.refused * 10 > tally.made, "too few fail: {tally:?}");
}

#[test]
fn fifty_thousand_packets() {
    let tally = on_random_bytes(0xface, INPUT, iterations(50_000), packets::run);
    assert!(tally.succeeded * 20 > tally.made, "too few succeed: {tally:?}");
    assert!(tally.refused * 20 > tally.made, "too few fail: {tally:?}");
}

/// Runs an input of keys on two guests of a new switch.
fn run_key_graphs(input: &[u8]) -> Tally {
    let switch = Switch::new();
    key_graphs::run([1, 2].map(|number| Node::open(machine(&switch, number), number)), input)
}

#[test]
fn kept_inputs() {
    let drivers: [(&str, Driver); 3] = [
        ("wqes", run_wqes),
        ("packets", packets::run),
        ("key_graphs", run_key_graphs),
    ];
    for (target, driver) in drivers {
        let inputs = on_kept_inputs(Path::new(CORPUS), target, driver);
        assert!(inputs > 0, "{target} has no seeds");
    }
}

#[test]
fn five_thousand_requests_through_keys_over_keys() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(5_000), run_key_graphs);
    assert!(tally.succeeded * 10 > tally.made, "too few succeed: {tally:?}");
    assert!(tally.refused * 10 > tally.made, "too few fail: {tally:?}");
}
