//! The drivers of the fuzz targets on random bytes, for machines without a fuzzer.

use crate::common::choices::Random;
use crate::common::rdma_fuzz::{Tally, packets, wqes};

/// Bytes of an input: more than a run uses up.
const INPUT: usize = 1 << 14;

/// Runs until so many of what the driver makes were made.
fn run(seed: u64, count: u64, driver: impl Fn(&[u8]) -> Tally) -> Tally {
    let mut random = Random(seed);
    let (mut tally, mut runs) = (Tally::default(), 0);
    while tally.made < count {
        tally.add(driver(&random.bytes(INPUT)));
        runs += 1;
    }
    println!("{tally:?} in {runs} runs");
    tally
}

#[test]
fn twenty_thousand_wqes() {
    let tally = run(0x5eed, 20_000, wqes::run);
    assert!(tally.carried_out * 40 > tally.made, "the bytes get nowhere: {tally:?}");
    assert!(tally.refused * 10 > tally.made, "all is right: {tally:?}");
}

#[test]
fn fifty_thousand_packets() {
    let tally = run(0xface, 50_000, packets::run);
    assert!(tally.carried_out * 20 > tally.made, "the bytes get nowhere: {tally:?}");
    assert!(tally.refused * 20 > tally.made, "all is right: {tally:?}");
}
