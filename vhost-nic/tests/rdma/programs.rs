//! Random programs on two connected queue pairs, with random loss on the wire, against a simple model of both memories.

use std::collections::VecDeque;

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::fuzz::iterations;
use mlx5_test_driver::qp::{Connection, Data, Request, Shape, service};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::pair::{End, Pair, pattern};
use crate::wire::Fate;

/// Bytes of each region that programs use.
const ARENA: usize = 1 << 14;
/// The first of these, reserved for atomics.
const COUNTERS: usize = 64;
/// Maximum bytes of a message.
const LONGEST: usize = 3000;

/// A request. Offsets are relative to the arenas.
#[derive(Debug, Clone)]
enum Step {
    Send {
        from: usize,
        to: usize,
        length: usize,
        immediate: bool,
        inline: bool,
    },
    Write {
        from: usize,
        to: usize,
        length: usize,
        immediate: bool,
        inline: bool,
    },
    Read {
        from: usize,
        to: usize,
        length: usize,
    },
    FetchAdd {
        at: usize,
        add: u64,
        to: usize,
    },
    CompareSwap {
        at: usize,
        compare: u64,
        swap: u64,
        to: usize,
    },
    Nop,
}

/// Lengths around packet boundaries, and any others.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![0..=70_usize, 1020..=1028_usize, 2046..=2050_usize, 0..=LONGEST]
}

fn offset() -> impl Strategy<Value = usize> {
    COUNTERS..=ARENA - LONGEST
}

fn counter() -> impl Strategy<Value = usize> {
    (0..COUNTERS / 8).prop_map(|index| index * 8)
}

fn step() -> impl Strategy<Value = Step> {
    let message = || (offset(), offset(), length(), any::<bool>(), any::<bool>());
    prop_oneof![
        message().prop_map(|(from, to, length, immediate, inline)| Step::Send {
            from,
            to,
            length,
            immediate,
            inline
        }),
        message().prop_map(|(from, to, length, immediate, inline)| Step::Write {
            from,
            to,
            length,
            immediate,
            inline
        }),
        (offset(), offset(), length()).prop_map(|(from, to, length)| Step::Read { from, to, length }),
        (counter(), any::<u64>(), offset()).prop_map(|(at, add, to)| Step::FetchAdd { at, add, to }),
        (counter(), 0..3_u64, 0..3_u64, offset()).prop_map(|(at, compare, swap, to)| Step::CompareSwap {
            at,
            compare,
            swap,
            to
        }),
        Just(Step::Nop),
    ]
}

/// Bursts: whether the first side posts, its requests, and whether all are signaled or only the last.
fn program() -> impl Strategy<Value = Vec<(bool, Vec<Step>, bool)>> {
    vec((any::<bool>(), vec(step(), 1..8), any::<bool>()), 1..12)
}

/// Expected memory of both sides, and expected receive completions.
struct Model {
    arenas: [Vec<u8>; 2],
    expected: Vec<(CqeOpcode, u16, usize, Option<u32>)>,
}

impl Model {
    fn word(&self, side: usize, at: usize) -> u64 {
        u64::from_le_bytes(*self.arenas[side][at..].first_chunk().unwrap())
    }

    fn set_word(&mut self, side: usize, at: usize, value: u64) {
        self.arenas[side][at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn copy(&mut self, from: (usize, usize), to: (usize, usize), length: usize) {
        let data = self.arenas[from.0][from.1..from.1 + length].to_vec();
        self.arenas[to.0][to.1..to.1 + length].copy_from_slice(&data);
    }

    /// Applies a step of side `me` to the model, posts the receive that it consumes, and builds its request.
    fn apply(&mut self, me: usize, step: &Step, own: &End, peer: &mut End, tag: u32) -> Request {
        let other = 1 - me;
        // A WQE has 1008 bytes after its control segment.
        let data = |from: usize, length: usize, inline: bool, arena: &[u8]| match (inline, length) {
            (true, 2..=600) => vec![
                Data::Inline(arena[from..from + length / 2].to_vec()),
                Data::Memory(own.part((from + length / 2) as u64, length - length / 2)),
            ],
            _ => own.data(from as u64, length),
        };
        let remote = |opcode, data, at: usize, peer: &End| {
            Request::remote(opcode, data, peer.memory.at(at as u64), peer.memory.key)
        };
        match *step {
            Step::Send {
                from,
                to,
                length,
                immediate,
                inline,
            } => {
                let half = length / 3;
                let list = [
                    peer.part(to as u64, half),
                    peer.part((to + half) as u64, length - half + 1),
                ];
                let receive = peer.qp.receive(&list);
                let data = data(from, length, inline, &self.arenas[me]);
                self.copy((me, from), (other, to), length);
                let (opcode, kind) = match immediate {
                    true => (WqeOpcode::SendImmediate, CqeOpcode::ResponderSendImmediate),
                    false => (WqeOpcode::Send, CqeOpcode::ResponderSend),
                };
                self.expected.push((kind, receive, length, immediate.then_some(tag)));
                Request {
                    immediate: tag,
                    ..Request::new(opcode, data)
                }
            }
            Step::Write {
                from,
                to,
                length,
                immediate,
                inline,
            } => {
                let data = data(from, length, inline, &self.arenas[me]);
                self.copy((me, from), (other, to), length);
                let opcode = if immediate {
                    WqeOpcode::RdmaWriteImmediate
                } else {
                    WqeOpcode::RdmaWrite
                };
                if immediate {
                    let receive = peer.qp.receive(&[]);
                    self.expected
                        .push((CqeOpcode::ResponderWriteImmediate, receive, length, Some(tag)));
                }
                Request {
                    immediate: tag,
                    ..remote(opcode, data, to, peer)
                }
            }
            Step::Read { from, to, length } => {
                self.copy((other, from), (me, to), length);
                remote(WqeOpcode::RdmaRead, own.data(to as u64, length), from, peer)
            }
            Step::FetchAdd { at, add, to } => {
                let found = self.word(other, at);
                self.set_word(other, at, found.wrapping_add(add));
                self.set_word(me, to, found);
                Request {
                    operands: Some((add, 0)),
                    ..remote(WqeOpcode::AtomicFetchAdd, own.data(to as u64, 8), at, peer)
                }
            }
            Step::CompareSwap { at, compare, swap, to } => {
                let found = self.word(other, at);
                if found == compare {
                    self.set_word(other, at, swap);
                }
                self.set_word(me, to, found);
                let data = own.data(to as u64, 8);
                Request {
                    operands: Some((swap, compare)),
                    ..remote(WqeOpcode::AtomicCompareSwap, data, at, peer)
                }
            }
            Step::Nop => Request::new(WqeOpcode::Nop, Vec::new()),
        }
    }
}

/// Fence bits of a WQE: requests that follow read what earlier ones return (the fence is the guest's duty).
const FENCE: u8 = 2 << 5;

fn run(program: &[(bool, Vec<Step>, bool)], fates: &[u8], psn: u32) {
    let how = Connection {
        psn: (psn, psn ^ 0x55),
        log_depth: 2,
        ..Connection::default()
    };
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    let mut model = Model {
        arenas: [pattern(1, ARENA), pattern(2, ARENA)],
        expected: Vec::new(),
    };
    for arena in &mut model.arenas {
        arena[..COUNTERS].fill(0);
    }
    pair.a.memory.write(0, &model.arenas[0]);
    pair.b.memory.write(0, &model.arenas[1]);
    let mut fates: VecDeque<u8> = fates.iter().copied().collect();
    pair.wire.judge(move |_| match fates.pop_front() {
        Some(0) => Fate::Drop,
        Some(1) => Fate::Duplicate,
        Some(2) => Fate::Delay,
        Some(3) => Fate::Corrupt,
        _ => Fate::Pass,
    });
    for (number, (forth, steps, all_complete)) in program.iter().enumerate() {
        let me = usize::from(!forth);
        let (own, peer) = if *forth {
            (&mut pair.a, &mut pair.b)
        } else {
            (&mut pair.b, &mut pair.a)
        };
        model.expected.clear();
        let mut completing = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let mut request = model.apply(me, step, own, peer, (number * 100 + index) as u32);
            request.flags |= FENCE;
            if !all_complete && index + 1 < steps.len() {
                request.flags &= !ControlSegment::CQ_UPDATE;
            }
            let counter = own.qp.put(&request);
            if request.flags & ControlSegment::CQ_UPDATE != 0 {
                completing.push((request.opcode, counter));
            }
        }
        own.qp.ring();
        for (opcode, counter) in completing {
            own.qp.sent(opcode, counter);
        }
        for (kind, receive, length, immediate) in &model.expected {
            let cqe = peer.qp.received(*kind, *receive, *length);
            if let Some(immediate) = immediate {
                assert_eq!(cqe.immediate.get(), *immediate);
            }
        }
        assert!(
            pair.a.memory.read(0, ARENA) == model.arenas[0],
            "burst {number}: first side"
        );
        assert!(
            pair.b.memory.read(0, ARENA) == model.arenas[1],
            "burst {number}: second side"
        );
        pair.a.qp.silent();
        pair.b.qp.silent();
    }
    pair.end();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: iterations(64) as u32,
        max_shrink_iters: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn programs_do_what_they_say_without_loss(
        program in program(),
        psn in prop_oneof![Just(0xff_fff0_u32), 0..0x100_0000_u32],
    ) {
        run(&program, &[], psn);
    }

    #[test]
    fn programs_do_what_they_say_whatever_the_wire_does(
        program in program(),
        fates in vec(0..24_u8, 0..400),
        psn in prop_oneof![Just(0xff_fff0_u32), 0..0x100_0000_u32],
    ) {
        run(&program, &fates, psn);
    }
}
