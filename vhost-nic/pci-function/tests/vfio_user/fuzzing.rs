//! The fuzz target's driver on random bytes, for machines without a fuzzer.

use fastrand::Rng;

use crate::fuzz_driver::run;

/// Messages to send.
const MESSAGES: u64 = 100_000;

#[test]
fn a_hundred_thousand_messages_get_exactly_the_answers_they_ask_for() {
    let mut random = Rng::with_seed(0x5eed);
    let (mut messages, mut successes, mut runs) = (0, 0, 0);
    while messages < MESSAGES {
        let mut input = vec![0; random.usize(200..8200)];
        random.fill(&mut input);
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
