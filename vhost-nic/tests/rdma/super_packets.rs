//! A super-packet has the effect of its packets one by one: the same packets on the wire, memory, completions and
//! counters.

use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::vport::QueryQCounterOut;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::{CompletionQueue, error_of};
use mlx5_test_driver::qp::{Connection, Data, Request, Shape, service};
use mlx5_test_driver::wait::{await_some, eventually};

use crate::counters::{counted_as, query};
use crate::inspect::Inspect;
use crate::pair::{End, Pair, SIZE, pattern};
use crate::wire::{Fate, Kind};

/// Path MTU in bytes.
const MTU: usize = 1024;
/// Bytes of a message of five packets, the last one short.
const LENGTH: usize = 4 * MTU + 77;
/// Bytes of a message longer than a super-packet.
const LONG: usize = (2 << 20) + 77;
/// Offset in the peer's region that messages go to.
const TARGET: u64 = 5001;

/// Everything observable on both sides.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    /// Packets in each direction, in order.
    packets: [Vec<Kind>; 2],
    sends: Vec<Completion>,
    receives: Vec<Completion>,
    counters: [QueryQCounterOut; 2],
}

/// Opcode, queue, length, immediate or key, and the error with its WQE counter.
type Completion = (u8, u32, u32, u32, Option<(u8, u16)>);

fn completions(cq: &mut CompletionQueue, count: usize) -> Vec<Completion> {
    let completions = (0..count).map(|_| {
        let cqe: Cqe = await_some("a completion", || cq.poll());
        cq.release();
        (
            cqe.op_own >> 4,
            cqe.sop_drop_qpn.get(),
            cqe.byte_count.get(),
            cqe.immediate.get(),
            error_of(&cqe),
        )
    });
    completions.collect()
}

/// A service, and the number of send and receive completions to expect.
struct Case {
    service: u8,
    sends: usize,
    receives: usize,
}

impl Case {
    fn rc(sends: usize, receives: usize) -> Self {
        Self {
            service: service::RC,
            sends,
            receives,
        }
    }

    fn uc(sends: usize, receives: usize) -> Self {
        Self {
            service: service::UC,
            ..Self::rc(sends, receives)
        }
    }

    /// Runs `act` with super-packets and with single packets, and compares. Returns the trace and the memory of both
    /// regions.
    #[track_caller]
    fn compare(self, act: impl Fn(&mut Pair)) -> (Trace, Vec<u8>) {
        let [(together, first), (single, second)] = [false, true].map(|single| self.run(single, &act));
        assert_eq!(together, single);
        assert!(first == second, "the memory differs");
        (together, first)
    }

    fn run(&self, single: bool, act: &impl Fn(&mut Pair)) -> (Trace, Vec<u8>) {
        // No retries: their time would make the trace random.
        let how = Connection {
            rnr_retry: 0,
            retry_count: 0,
            ack_timeout: 20,
            ..Connection::default()
        };
        assert_eq!(how.mtu(), MTU);
        let mut result = None;
        counted_as(self.service, how, |pair| {
            pair.a.memory.write(0, &pattern(1, SIZE as usize));
            pair.b.memory.write(0, &pattern(2, SIZE as usize));
            if single {
                pair.wire.judge(|_| Fate::Pass);
            }
            act(pair);
            let sends = completions(&mut pair.a.qp.send_cq, self.sends);
            let receives = completions(&mut pair.b.qp.receive_cq, self.receives);
            pair.a.qp.silent();
            pair.b.qp.silent();
            let counters = [&pair.a, &pair.b].map(|end| query(&end.node, true));
            let memory = [&pair.a, &pair.b].map(|end: &End| end.memory.read(0, SIZE as usize));
            let (forth, back) = pair.wire.seen().into_iter().partition(|packet| packet.forth);
            let trace = Trace {
                packets: [forth, back],
                sends,
                receives,
                counters,
            };
            result = Some((trace, memory.concat()));
        });
        result.unwrap()
    }
}

/// Two scatter entries, the second with an invalid key.
fn half_reachable(end: &End, first: usize) -> [(u64, u32, u32); 2] {
    let (address, length, key) = end.part(first as u64, LENGTH - first);
    [end.part(0, first), (address, length, key ^ 1)]
}

#[test]
fn messages_arrive() {
    for length in [1, MTU, MTU + 1, 2 * MTU, LENGTH, LONG] {
        for case in [Case::rc, Case::uc] {
            case(3, 2).compare(|pair| {
                let into = [pair.b.part(0, 100), pair.b.part(TARGET, length)];
                pair.b.qp.receive(&into);
                pair.b.qp.receive(&[]);
                let send = Request::new(WqeOpcode::Send, pair.a.data(0, length));
                pair.a.qp.put(&send);
                let write = pair.request(WqeOpcode::RdmaWrite, pair.a.data(3, length), TARGET);
                pair.a.qp.put(&write);
                let immediate = Request {
                    immediate: 0x0102_0304,
                    ..pair.request(WqeOpcode::RdmaWriteImmediate, pair.a.data(7, length), TARGET + 1)
                };
                pair.a.qp.post(&immediate);
            });
        }
        Case::rc(1, 0).compare(|pair| {
            pair.a
                .qp
                .post(&pair.request(WqeOpcode::RdmaRead, pair.a.data(9, length), TARGET));
        });
    }
}

#[test]
fn a_message_without_a_receive_is_refused_where_it_needs_one() {
    for (opcode, arrives) in [(WqeOpcode::Send, false), (WqeOpcode::RdmaWriteImmediate, true)] {
        let (trace, memory) = Case::rc(1, 0).compare(|pair| {
            let data = pair.a.data(0, LENGTH);
            let request = match opcode {
                WqeOpcode::Send => Request::new(opcode, data),
                _ => pair.request(opcode, data, TARGET),
            };
            pair.a.qp.post(&request);
        });
        assert_eq!(trace.sends[0].4.map(|(syndrome, _)| syndrome), Some(0x16));
        let written = &memory[SIZE as usize + TARGET as usize..][..4 * MTU];
        assert_eq!(written == &pattern(1, SIZE as usize)[..4 * MTU], arrives);
    }
}

#[test]
fn what_fits_in_a_receive_is_written() {
    let room = 2 * MTU + 500;
    let (trace, memory) = Case::rc(1, 1).compare(|pair| {
        let into = pair.b.part(TARGET, room);
        pair.b.qp.receive(&[into]);
        pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
    });
    assert_eq!(trace.sends[0].4.map(|(syndrome, _)| syndrome), Some(0x12));
    assert_eq!(trace.receives[0].4.map(|(syndrome, _)| syndrome), Some(0x01));
    // Two packets fit, the third one does not.
    let target = &memory[SIZE as usize + TARGET as usize..];
    assert!(target[..2 * MTU] == pattern(1, SIZE as usize)[..2 * MTU]);
    let untouched = &pattern(2, SIZE as usize)[TARGET as usize..];
    assert!(target[2 * MTU..room] == untouched[2 * MTU..room]);
}

#[test]
fn what_can_be_reached_is_written() {
    for first in [1, MTU, 2 * MTU + 100, LENGTH - 1] {
        let (trace, _) = Case::rc(1, 1).compare(|pair| {
            let into = half_reachable(&pair.b, first);
            pair.b.qp.receive(&into);
            pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
        });
        assert_eq!(trace.sends[0].4.map(|(syndrome, _)| syndrome), Some(0x14), "{first}");
        assert_eq!(trace.receives[0].4.map(|(syndrome, _)| syndrome), Some(0x04), "{first}");
        Case::rc(1, 0).compare(|pair| {
            let into = half_reachable(&pair.a, first).map(Data::Memory).to_vec();
            pair.a.qp.post(&pair.request(WqeOpcode::RdmaRead, into, TARGET));
        });
    }
}

#[test]
fn what_can_be_read_is_sent() {
    for first in [1, MTU, 2 * MTU + 100, LENGTH - 1] {
        let (trace, _) = Case::rc(1, 0).compare(|pair| {
            let into = pair.b.part(TARGET, LENGTH);
            pair.b.qp.receive(&[into]);
            let data = half_reachable(&pair.a, first).map(Data::Memory).to_vec();
            pair.a.qp.post(&Request::new(WqeOpcode::Send, data));
        });
        assert_eq!(trace.sends[0].4.map(|(syndrome, _)| syndrome), Some(0x04), "{first}");
        assert_eq!(trace.packets[0].len(), first / MTU, "{first}");
    }
}

#[test]
fn a_key_is_taken_away_by_the_end_of_a_message_or_not_at_all() {
    for valid in [true, false] {
        // A receive that is partly filled is flushed.
        let (trace, _) = Case::rc(1, 1).compare(|pair| {
            let target = pair.b.node.region(4096);
            let into = pair.b.part(TARGET, LENGTH);
            pair.b.qp.receive(&[into]);
            let request = Request {
                immediate: if valid { target.key } else { target.key ^ 1 },
                ..Request::new(WqeOpcode::SendInvalidate, pair.a.data(0, LENGTH))
            };
            pair.a.qp.post(&request);
            eventually("the completion of the message", || pair.a.qp.send_cq.has_more());
            target.destroy(&pair.b.node.hca).unwrap();
        });
        assert_eq!(trace.sends[0].4.is_none(), valid);
    }
}

#[test]
fn an_unreliable_message_is_lost_as_a_whole() {
    let (trace, memory) = Case::uc(3, 1).compare(|pair| {
        // No receive for the first, and too short a receive for the second.
        pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
        eventually("the completion of the message", || pair.a.qp.send_cq.has_more());
        let into = pair.b.part(TARGET, 2 * MTU);
        pair.b.qp.receive(&[into]);
        pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(100, LENGTH)));
        pair.a
            .qp
            .post(&Request::new(WqeOpcode::Send, pair.a.data(200, 2 * MTU)));
    });
    assert!(trace.sends.iter().all(|completion| completion.4.is_none()));
    let sent = &pattern(1, SIZE as usize)[200..][..2 * MTU];
    assert!(&memory[SIZE as usize + TARGET as usize..][..2 * MTU] == sent);
}

/// Reads of doorbell records.
fn record_reads(end: &End) -> u64 {
    let snapshot = serde_json::to_value(end.node.hca.machine.nic().snapshot()).unwrap();
    let purposes = snapshot["dma"].as_array().unwrap();
    let record = purposes
        .iter()
        .find(|purpose| purpose["purpose"] == "doorbell_record")
        .unwrap();
    record["accesses"].as_u64().unwrap()
}

#[test]
fn an_unreliable_message_is_not_held_back_for_acknowledgements() {
    let mut pair = Pair::new(Shape::new(service::UC), &Connection::default());
    pair.a.memory.write(0, &pattern(1, LONG));
    let before = record_reads(&pair.a);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LONG), 0);
    let counter = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
    assert!(pair.b.memory.read(0, LONG) == pattern(1, LONG));
    // A batch begins with a look at the doorbell record, and has up to a MiB.
    let batches = record_reads(&pair.a) - before;
    assert!(batches <= 8, "{batches} batches for {LONG} bytes");
    pair.end();
}
