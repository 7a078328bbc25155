//! The fuzz driver of virtqueues on random bytes.

use fastrand::Rng;

use crate::common::ring_driver;

/// Bytes of an input: more than a run consumes.
const INPUT: usize = 2000;
const STEPS: u64 = 20_000;

#[test]
fn twenty_thousand_steps_of_hostile_rings() {
    let mut random = Rng::with_seed(0x5eed);
    let (mut steps, mut refused, mut requests) = (0, 0, 0);
    while steps < STEPS {
        let mut input = vec![0; INPUT];
        random.fill(&mut input);
        let tally = ring_driver::run(&input);
        steps += tally.steps;
        refused += tally.refused;
        requests = tally.requests;
    }
    println!("{steps} steps, {requests} requests answered, {refused} connections ended by a refusal");
    assert!(requests * 20 > steps, "too few requests are answered: {requests}");
    assert!(refused > 0);
}
