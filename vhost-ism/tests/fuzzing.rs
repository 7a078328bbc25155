//! The fuzz target's driver on random bytes, for machines without a fuzzer.

#[path = "common/control_driver.rs"]
mod control_driver;

use control_driver::Driver;
use vhost_daemon::testing::Random;

/// Requests a run makes.
const REQUESTS: u64 = 200_000;

/// Changes an input as a fuzzer would: bits, bytes, and pieces of another one.
fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(8) {
        if input.is_empty() {
            return input.extend(random.bytes(16));
        }
        let at = random.below(input.len());
        match random.below(6) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.next() as u8,
            2 => input[at] = [0, 1, 127, 128, 254, 255][random.below(6)],
            3 => drop(input.remove(at)),
            4 => input.insert(at, random.next() as u8),
            _ => {
                let from = random.below(other.len().max(1));
                let len = random.below(200).min(other.len() - from);
                input.splice(at.., other[from..from + len].iter().copied());
            }
        }
    }
}

#[test]
fn two_hundred_thousand_requests() {
    let mut random = Random::new(0x5eed);
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let (mut requests, mut granted, mut runs) = (0, 0, 0);
    while requests < REQUESTS {
        let input = if runs % 2 == 0 || corpus.is_empty() {
            let len = 200 + random.below(4000);
            random.bytes(len)
        } else {
            let mut input = corpus[random.below(corpus.len())].clone();
            let other = corpus[random.below(corpus.len())].clone();
            mutate(&mut random, &mut input, &other);
            input
        };
        let tally = Driver::run(&input);
        requests += tally.requests;
        granted += tally.granted;
        runs += 1;
        // Those that get furthest are changed further.
        if tally.granted * 3 > tally.requests || corpus.len() < 16 {
            let at = random.below(64);
            if at < corpus.len() {
                corpus[at] = input;
            } else {
                corpus.push(input);
            }
        }
    }
    println!("{requests} requests in {runs} runs, {granted} granted");
    assert!(
        granted * 10 > requests,
        "the bytes get nowhere: {granted} of {requests}"
    );
}
