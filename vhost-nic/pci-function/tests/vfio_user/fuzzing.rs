//! The fuzz target's driver on random bytes, for machines without a fuzzer.

use crate::fuzz_driver::run;

/// Messages to send.
const MESSAGES: u64 = 100_000;

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
fn a_hundred_thousand_messages_get_exactly_the_answers_they_ask_for() {
    let mut random = Random(0x5eed);
    let (mut messages, mut successes, mut runs) = (0, 0, 0);
    while messages < MESSAGES {
        let length = 200 + random.next() % 8000;
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let tally = run(&input);
        messages += tally.messages;
        successes += tally.successes;
        runs += 1;
    }
    println!("{messages} messages in {runs} runs, {successes} successes");
    assert!(
        successes * 4 > messages,
        "the bytes get nowhere: {successes} of {messages}"
    );
}
