//! The fuzz target's driver on random bytes, for machines without a fuzzer.

use fastrand::Rng;

use crate::fuzz_driver::run;

/// Steps to make.
const STEPS: u64 = 20_000;

#[test]
fn after_random_rings_and_messages_the_next_guest_is_served() {
    let mut random = Rng::with_seed(0x5eed);
    let (mut steps, mut returned, mut refused, mut runs) = (0, 0, 0, 0);
    while steps < STEPS {
        let mut input = vec![0; random.usize(200..2000)];
        random.fill(&mut input);
        let tally = run(&input);
        steps += tally.steps;
        returned += tally.returned;
        refused += u64::from(tally.refused);
        runs += 1;
    }
    println!("{steps} steps in {runs} runs, {returned} chains returned, {refused} connections ended by the device");
    assert!(returned > runs, "the bytes get nowhere: {returned} of {steps}");
    assert!(refused > 0, "no message was refused");
}
