//! Fuzz drivers of the function and of Ethernet, on random bytes and on the inputs that fuzzing has kept.

use std::path::Path;

use mlx5_test_driver::fuzz::{
    Driver, Tally, commands, flow_tables, iterations, on_kept_inputs, on_random_bytes, registers,
};
use mlx5_test_driver::node::Node;
use vhost_nic::net::Switch;

use crate::nic::machine;
use crate::{captured_frames, raw_frames};

/// Bytes of an input: more than a run consumes.
const INPUT: usize = 8000;
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

fn run_commands(input: &[u8]) -> Tally {
    commands::run(machine(&Switch::new(), 1), input)
}

fn run_flow_tables(input: &[u8]) -> Tally {
    let switch = Switch::new();
    flow_tables::run([1, 2].map(|number| machine(&switch, number)), input)
}

fn run_registers(input: &[u8]) -> Tally {
    let switch = Switch::new();
    registers::run([1, 2].map(|number| Node::open(machine(&switch, number), number)), input)
}

#[test]
fn fifty_thousand_commands() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(50_000), run_commands);
    assert!(tally.succeeded * 4 > tally.made, "too few succeed: {tally:?}");
}

#[test]
fn twenty_thousand_steps_of_flow_tables_and_frames() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(20_000), run_flow_tables);
    assert!(tally.succeeded * 4 > tally.made, "too few succeed: {tally:?}");
}

#[test]
fn twenty_thousand_accesses() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(20_000), run_registers);
    assert!(
        tally.succeeded * 20 > tally.made,
        "too few writes are carried out: {tally:?}"
    );
}

#[test]
fn a_hundred_thousand_frames() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(100_000), raw_frames::run);
    assert!(tally.succeeded * 4 > tally.made, "too few have a transport: {tally:?}");
}

#[test]
fn twenty_thousand_captured_frames() {
    let tally = on_random_bytes(0x5eed, INPUT, iterations(20_000), captured_frames::run);
    assert!(tally.succeeded * 4 > tally.made, "too few are captured: {tally:?}");
    assert!(tally.refused > 0);
}

#[test]
fn kept_inputs() {
    let drivers: [(&str, Driver); 5] = [
        ("commands", run_commands),
        ("flow_tables", run_flow_tables),
        ("registers", run_registers),
        ("frames", raw_frames::run),
        ("capture", captured_frames::run),
    ];
    for (target, driver) in drivers {
        let inputs = on_kept_inputs(Path::new(CORPUS), target, driver);
        assert!(inputs > 0, "{target} has no seeds");
    }
}
