//! The fuzz target's driver on random bytes, for machines without a fuzzer.

use crate::common::choices::Random;
use crate::common::command_fuzz::run;

/// Commands a run makes.
const COMMANDS: u64 = 50_000;
/// Bytes of an input: more than a run uses up.
const INPUT: usize = 8000;

#[test]
fn fifty_thousand_commands() {
    let mut random = Random(0x5eed);
    let (mut commands, mut accepted, mut runs) = (0, 0, 0);
    while commands < COMMANDS {
        let tally = run(&random.bytes(INPUT));
        commands += tally.commands;
        accepted += tally.accepted;
        runs += 1;
    }
    println!("{commands} commands in {runs} runs, {accepted} carried out");
    assert!(
        accepted * 4 > commands,
        "the bytes get nowhere: {accepted} of {commands}"
    );
}
