//! Bytes become what a hostile guest posts, or what a hostile peer sends. Afterwards the device must still work, nobody else's memory may
//! have changed, and nothing may be left of what was made.

pub mod packets;
pub mod wqes;

use std::sync::Arc;

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;

use super::memory::{Block, Memory};
use super::node::Node;
use super::queue_pair::{Connection, Data, QueuePair, Request, Shape, connect, service};

/// What a run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// WQEs posted, or packets sent.
    pub made: u64,
    /// Completions without an error, or answers.
    pub carried_out: u64,
    /// Completions with an error, or refusals.
    pub refused: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        self.made += other.made;
        self.carried_out += other.carried_out;
        self.refused += other.refused;
    }
}

/// Memory that nobody has a right to.
struct Canary(Vec<Block>);

/// Bytes of each part.
const CANARY: u64 = 1 << 14;

impl Canary {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn expected(part: usize) -> Vec<u8> {
        (0..CANARY as usize)
            .map(|at| (at * 31 + at / 251 + part) as u8)
            .collect()
    }

    /// Puts another part where the next object's memory would have been.
    fn sit(&mut self, memory: &Arc<Memory>) {
        let block = memory.allocate(CANARY);
        block.write(0, &Self::expected(self.0.len()));
        self.0.push(block);
    }

    fn check(&self) {
        for (part, block) in self.0.iter().enumerate() {
            assert!(
                block.read(0, CANARY as usize) == Self::expected(part),
                "memory of somebody else was written"
            );
        }
    }
}

/// Two guests with new queue pairs send, write, read and count.
fn exchange(a: &Node, b: &Node) {
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
