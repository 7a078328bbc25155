//! The fuzz target's driver on random bytes, for machines without a fuzzer.

use crate::common::command_fuzz::run;

/// Commands a run makes.
const COMMANDS: u64 = 50_000;
/// Bytes of an input: more than a run uses up.
const INPUT: usize = 8000;

/// A generator of reproducible bytes (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn fifty_thousand_commands() {
    let mut random = Random(0x5eed);
    let (mut commands, mut accepted, mut runs) = (0, 0, 0);
    while commands < COMMANDS {
        let input: Vec<u8> = (0..INPUT / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        let tally = run(&input);
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
