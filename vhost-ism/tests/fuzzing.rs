//! The driver of the fuzz target, on random bytes.

#[path = "common/control_driver.rs"]
mod control_driver;

use control_driver::Driver;
use fastrand::Rng;

/// Minimum number of requests.
const REQUESTS: u64 = 200_000;

fn bytes(random: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// Mutates an input as a fuzzer does: bits, bytes, and parts of another one.
fn mutate(random: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.usize(..8) {
        if input.is_empty() {
            return input.extend(bytes(random, 16));
        }
        let at = random.usize(..input.len());
        match random.usize(..6) {
            0 => input[at] ^= 1 << random.usize(..8),
            1 => input[at] = random.u8(..),
            2 => input[at] = [0, 1, 127, 128, 254, 255][random.usize(..6)],
            3 => drop(input.remove(at)),
            4 => input.insert(at, random.u8(..)),
            _ => {
                let from = random.usize(..other.len().max(1));
                let len = random.usize(..200).min(other.len() - from);
                input.splice(at.., other[from..from + len].iter().copied());
            }
        }
    }
}

#[test]
fn two_hundred_thousand_requests() {
    let mut random = Rng::with_seed(0x5eed);
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let (mut requests, mut granted, mut runs) = (0, 0, 0);
    while requests < REQUESTS {
        let input = if runs % 2 == 0 || corpus.is_empty() {
            let len = 200 + random.usize(..4000);
            bytes(&mut random, len)
        } else {
            let mut input = corpus[random.usize(..corpus.len())].clone();
            let other = corpus[random.usize(..corpus.len())].clone();
            mutate(&mut random, &mut input, &other);
            input
        };
        let tally = Driver::run(&input);
        requests += tally.requests;
        granted += tally.granted;
        runs += 1;
        // Inputs that get furthest are mutated further.
        if tally.granted * 3 > tally.requests || corpus.len() < 16 {
            let at = random.usize(..64);
            if at < corpus.len() {
                corpus[at] = input;
            } else {
                corpus.push(input);
            }
        }
    }
    println!("{requests} requests in {runs} runs, {granted} granted");
    assert!(granted * 10 > requests, "too few succeed: {granted} of {requests}");
}
