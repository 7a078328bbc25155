//! Fuzz drivers: bytes become what a hostile guest posts. Afterwards the device must still work, no memory outside the
//! guest's buffers may have changed, and no object may be left.
//!
//! libFuzzer targets and tests on random bytes ([`on_random_bytes`]) run the same drivers.

pub mod canary;
pub mod choices;
pub mod commands;
pub mod flow_tables;
pub mod frames;
pub mod key_graphs;
pub mod registers;
pub mod targets;
pub mod wqes;

use std::fs;
use std::path::{Path, PathBuf};

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;

use crate::node::Node;
use crate::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};

/// Environment variable with the percentage of [`iterations`].
pub const ITERATIONS: &str = "VHOST_TEST_ITERATIONS";
/// The percentage without it.
const DEFAULT_PERCENT: u64 = 10;

/// Number of iterations of a test that makes `full` of them at 100 %: [`ITERATIONS`] is the percentage, 10 by default.
///
/// Panics if the variable is not a positive number, so that a typing error does not pass for a short run.
pub fn iterations(full: u64) -> u64 {
    let percent = match std::env::var(ITERATIONS) {
        Ok(text) => match text.parse() {
            Ok(percent) if percent > 0 => percent,
            _ => panic!("{ITERATIONS}={text} is not a percentage"),
        },
        Err(_) => DEFAULT_PERCENT,
    };
    (full * percent / 100).max(1)
}

/// Results of runs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Commands sent, WQEs posted or packets sent.
    pub made: u64,
    /// Successful commands, completions without error, or acknowledgements and responses.
    pub succeeded: u64,
    /// Failed commands, completions with error, or NAKs.
    pub refused: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.made += other.made;
        self.succeeded += other.succeeded;
        self.refused += other.refused;
    }
}

/// Runs an input of bytes.
pub type Driver = fn(&[u8]) -> Tally;

/// Runs a driver on the inputs that are kept for a target in `corpus`, and prints the name of each before. Returns
/// their number.
pub fn on_kept_inputs(corpus: &Path, target: &str, driver: Driver) -> usize {
    let Ok(entries) = fs::read_dir(corpus.join(target)) else {
        return 0;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        println!("{}", file.display());
        driver(&fs::read(file).unwrap());
    }
    files.len()
}

/// Runs a driver on reproducible random inputs of `length` bytes until it has made `count`.
pub fn on_random_bytes(seed: u64, length: usize, count: u64, driver: impl Fn(&[u8]) -> Tally) -> Tally {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut input = vec![0; length];
    let (mut tally, mut runs) = (Tally::default(), 0);
    while tally.made < count {
        random.fill(&mut input);
        tally.add(driver(&input));
        runs += 1;
    }
    println!("{tally:?} in {runs} runs");
    tally
}

/// Sends, writes, reads and counts between new queue pairs of two guests, and checks the data.
pub fn exchange(a: &Node, b: &Node) {
    const LENGTH: usize = 5000;
    let mut ends = [a, b].map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
    let memories = [a, b].map(|node| node.region(1 << 16));
    let [first, second] = &mut ends;
    connect((a, first), (b, second), &Connection::default());
    let data: Vec<u8> = (0..LENGTH).map(|at| (at % 253) as u8).collect();
    memories[0].write(0, &data);
    let part = |side: usize, at: u64, length: usize| (memories[side].at(at), length as u32, memories[side].key);
    let own = |at, length| vec![Data::Memory(part(0, at, length))];
    let remote = |opcode, data, at| Request::remote(opcode, data, memories[1].at(at), memories[1].key);
    let receive = second.receive(&[part(1, 0, LENGTH)]);
    let send = first.post(&Request::new(WqeOpcode::Send, own(0, LENGTH)));
    first.sent(WqeOpcode::Send, send);
    second.received(CqeOpcode::ResponderSend, receive, LENGTH);
    assert!(memories[1].read(0, LENGTH) == data);
    let write = first.post(&remote(WqeOpcode::RdmaWrite, own(0, LENGTH), 8192));
    first.sent(WqeOpcode::RdmaWrite, write);
    assert!(memories[1].read(8192, LENGTH) == data);
    let read = first.post(&remote(WqeOpcode::RdmaRead, own(8192, LENGTH), 8192));
    first.sent(WqeOpcode::RdmaRead, read);
    assert!(memories[0].read(8192, LENGTH) == data);
    let mut request = remote(WqeOpcode::AtomicFetchAdd, own(0, 8), 16384);
    request.operands = Some((3, 0));
    let atomic = first.post(&request);
    first.sent(WqeOpcode::AtomicFetchAdd, atomic);
    assert_eq!(memories[1].read(16384, 8), 3_u64.to_le_bytes());
    for (node, (end, memory)) in [a, b].into_iter().zip(ends.iter().zip(&memories)) {
        end.destroy(node).unwrap();
        memory.destroy(&node.hca).unwrap();
    }
}
