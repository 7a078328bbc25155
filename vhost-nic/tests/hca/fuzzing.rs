//! The fuzz driver of commands on random bytes.

use mlx5_test_driver::fuzz::{commands, iterations, on_random_bytes};
use vhost_nic::net::Switch;

use crate::nic::machine;

/// Bytes of an input: more than a run consumes.
const INPUT: usize = 8000;

#[test]
fn fifty_thousand_commands() {
    let run = |input: &[u8]| commands::run(machine(&Switch::new(), 1), input);
    let tally = on_random_bytes(0x5eed, INPUT, iterations(50_000), run);
    assert!(tally.succeeded * 4 > tally.made, "too few succeed: {tally:?}");
}
