//! The fuzz target's driver on random bytes, for machines without a fuzzer.

use vhost_daemon::testing::Random;

use crate::fuzz_driver::run;

/// Messages that are sent.
const MESSAGES: u64 = 100_000;

#[test]
fn a_hundred_thousand_messages_get_exactly_the_answers_they_ask_for() {
    let mut random = Random::new(0x5eed);
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
