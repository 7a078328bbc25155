//! Two daemons joined by a medium that loses, duplicates, reorders and corrupts frames: every byte, every completion
//! and every atomic is checked.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Request, Shape, connect, service};
use tempfile::TempDir;
use vhost_nic::external_port::{DatagramMedium, ExternalPort, Incoming, Medium, Outgoing};
use vhost_nic::net::Switch;

use crate::nic::machine;
use crate::pair::{End, pattern};

const QUEUE: usize = 8 << 20;
/// Messages of each side in a round.
const MESSAGES: usize = 16;
/// Maximum bytes of a message, eight packets.
const SLOT: usize = 8 << 10;
/// Areas of each side's region, with a slot for each message.
const SOURCE: u64 = 0;
const RECEIVED: u64 = 1;
const WRITTEN: u64 = 2;
const READ_FROM: u64 = 3;
const READ_TO: u64 = 4;
/// The word that the peer's atomics change is behind the areas.
const COUNTER: u64 = 5 * (MESSAGES * SLOT) as u64;

/// Probability of each fate of a frame, in percent.
#[derive(Clone, Copy, Default)]
struct Rates {
    loss: u8,
    duplicate: u8,
    reorder: u8,
    corrupt: u8,
}

const ALL: Rates = Rates {
    loss: 1,
    duplicate: 1,
    reorder: 1,
    corrupt: 1,
};
/// Messages of a run.
const MANY: u64 = 6_400;

/// Frames that met each fate.
#[derive(Default)]
struct Struck {
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    corrupted: AtomicU64,
}

/// A medium whose arriving frames meet their fate.
struct LossyMedium {
    inner: DatagramMedium,
    rates: Rates,
    struck: Arc<Struck>,
    random: Rng,
    /// Arrives next: a duplicate, or a frame that another has overtaken.
    next: Option<Vec<u8>>,
    /// Waits to be overtaken.
    held: Option<Vec<u8>>,
}

impl LossyMedium {
    fn strikes(&mut self, percent: u8, count: impl Fn(&Struck) -> &AtomicU64) -> bool {
        let strikes = self.random.u8(..100) < percent;
        count(&self.struck).fetch_add(strikes.into(), Ordering::Relaxed);
        strikes
    }
}

impl Medium for LossyMedium {
    fn kind(&self) -> &'static str {
        "lossy"
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }

    fn retry(&self) -> Option<std::time::Duration> {
        self.inner.retry()
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming {
        loop {
            if let Some(next) = self.next.take() {
                *frame = next;
                return Incoming::Frame;
            }
            let incoming = self.inner.receive(frame);
            if incoming != Incoming::Frame {
                // Nothing is left that could overtake it.
                return match self.held.take() {
                    Some(held) => {
                        *frame = held;
                        Incoming::Frame
                    }
                    None => incoming,
                };
            }
            if self.strikes(self.rates.loss, |struck| &struck.lost) {
                continue;
            }
            if self.strikes(self.rates.corrupt, |struck| &struck.corrupted) {
                let at = self.random.usize(..frame.len());
                frame[at] ^= 1 << self.random.u8(..8);
            }
            if self.strikes(self.rates.duplicate, |struck| &struck.duplicated) {
                self.next = Some(frame.clone());
            } else if self.held.is_none() && self.strikes(self.rates.reorder, |struck| &struck.reordered) {
                self.held = Some(std::mem::take(frame));
                continue;
            } else if self.held.is_some() {
                self.next = self.held.take();
            }
            return Incoming::Frame;
        }
    }

    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool> {
        self.inner.send(outgoing)
    }
}

/// Two guests of different switches, and the ports in between.
struct Distant {
    ends: [End; 2],
    ports: [ExternalPort; 2],
    struck: Arc<Struck>,
    random: Rng,
    /// Values of the words that atomics change.
    counters: [u64; 2],
    _directory: TempDir,
}

/// A message of a round.
#[derive(Clone, Copy)]
struct Posted {
    opcode: WqeOpcode,
    length: usize,
    /// Value that an atomic finds.
    finds: u64,
    /// Counter of the send WQE.
    counter: u16,
    /// Counter of the receive WQE, if the message takes one.
    receive: u16,
}

/// Kinds of messages.
const OPCODES: [WqeOpcode; 7] = [
    WqeOpcode::Send,
    WqeOpcode::SendImmediate,
    WqeOpcode::RdmaWrite,
    WqeOpcode::RdmaWriteImmediate,
    WqeOpcode::RdmaRead,
    WqeOpcode::AtomicFetchAdd,
    WqeOpcode::AtomicCompareSwap,
];

fn slot(area: u64, message: usize) -> u64 {
    area * (MESSAGES * SLOT) as u64 + (message * SLOT) as u64
}

/// Opcode of the receive's completion; `None` if the message takes no receive.
fn received_as(opcode: WqeOpcode) -> Option<CqeOpcode> {
    match opcode {
        WqeOpcode::Send => Some(CqeOpcode::ResponderSend),
        WqeOpcode::SendImmediate => Some(CqeOpcode::ResponderSendImmediate),
        WqeOpcode::RdmaWriteImmediate => Some(CqeOpcode::ResponderWriteImmediate),
        _ => None,
    }
}

impl Distant {
    fn new(rates: Rates, seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        let struck = Arc::new(Struck::default());
        let side = |side: usize| {
            let switch = Switch::new();
            let node = Node::open(machine(&switch, side as u8 + 1), side as u8 + 1);
            let socket = UnixDatagram::bind(&paths[side]).unwrap();
            let medium = LossyMedium {
                inner: DatagramMedium::new(socket, paths[1 - side].clone()).unwrap(),
                rates,
                struck: Arc::clone(&struck),
                random: Rng::with_seed(seed + side as u64),
                next: None,
                held: None,
            };
            let port = ExternalPort::start(&switch, "wire", Box::new(medium), QUEUE).unwrap();
            (End::of_node(node, Shape::new(service::RC)), port)
        };
        let ((a, first), (b, second)) = (side(0), side(1));
        let how = Connection {
            // Sequence numbers wrap on the way.
            psn: (0xff_ff00, 0x65_4321),
            // That of rdma-core's programs: a busy machine stops single threads for tenths of a second.
            ack_timeout: 14,
            ..Connection::default()
        };
        connect((&a.node, &a.qp), (&b.node, &b.qp), &how);
        for end in [&a, &b] {
            end.memory.write(COUNTER, &[0; 8]);
        }
        Self {
            ends: [a, b],
            ports: [first, second],
            struck,
            random: Rng::with_seed(!seed),
            counters: [0; 2],
            _directory: directory,
        }
    }

    /// Posts messages of all kinds on both sides, and checks them.
    fn round(&mut self, seed: u64) {
        let posted = [0, 1].map(|side| self.prepare(side, seed));
        for end in &self.ends {
            end.qp.ring();
        }
        for (side, posted) in posted.iter().enumerate() {
            self.check(side, posted, seed);
        }
        for end in &mut self.ends {
            end.qp.silent();
        }
    }

    /// Writes the data, the receives and the WQEs of a side's messages, without the doorbell.
    fn prepare(&mut self, side: usize, seed: u64) -> Vec<Posted> {
        (0..MESSAGES)
            .map(|message| {
                let opcode = OPCODES[self.random.usize(..OPCODES.len())];
                let length = self.random.usize(1..=SLOT);
                let data = content(seed, side, message, length);
                let [end, peer] = self.ends.get_disjoint_mut([side, 1 - side]).unwrap();
                end.memory.write(slot(SOURCE, message), &data);
                peer.memory.write(slot(READ_FROM, message), &data);
                let receive = match received_as(opcode) {
                    Some(_) => {
                        let part = peer.part(slot(RECEIVED, message), SLOT);
                        peer.qp.receive(&[part])
                    }
                    None => 0,
                };
                let word = &mut self.counters[1 - side];
                let (finds, add) = (*word, self.random.u64(..));
                let (area, length, at, operands) = match opcode {
                    WqeOpcode::AtomicFetchAdd => (READ_TO, 8, COUNTER, Some((add, 0))),
                    WqeOpcode::AtomicCompareSwap => (READ_TO, 8, COUNTER, Some((add, finds))),
                    WqeOpcode::RdmaRead => (READ_TO, length, slot(READ_FROM, message), None),
                    _ => (SOURCE, length, slot(WRITTEN, message), None),
                };
                match opcode {
                    WqeOpcode::AtomicFetchAdd => *word = word.wrapping_add(add),
                    WqeOpcode::AtomicCompareSwap => *word = add,
                    _ => {}
                }
                let data = end.data(slot(area, message), length);
                let request = match opcode {
                    WqeOpcode::Send | WqeOpcode::SendImmediate => Request::new(opcode, data),
                    _ => Request::remote(opcode, data, peer.memory.at(at), peer.memory.key),
                };
                let request = Request {
                    immediate: length as u32,
                    operands,
                    ..request
                };
                let counter = end.qp.put(&request);
                Posted {
                    opcode,
                    length,
                    finds,
                    counter,
                    receive,
                }
            })
            .collect()
    }

    /// Waits for the completions of a side's messages, and compares what they carried.
    fn check(&mut self, side: usize, posted: &[Posted], seed: u64) {
        let [end, peer] = self.ends.get_disjoint_mut([side, 1 - side]).unwrap();
        for (message, posted) in posted.iter().enumerate() {
            end.qp.sent(posted.opcode, posted.counter);
            if let Some(opcode) = received_as(posted.opcode) {
                let cqe = peer.qp.received(opcode, posted.receive, posted.length);
                assert!(opcode == CqeOpcode::ResponderSend || cqe.immediate.get() == posted.length as u32);
            }
            let (memory, area) = match posted.opcode {
                WqeOpcode::Send | WqeOpcode::SendImmediate => (&peer.memory, RECEIVED),
                WqeOpcode::RdmaWrite | WqeOpcode::RdmaWriteImmediate => (&peer.memory, WRITTEN),
                _ => (&end.memory, READ_TO),
            };
            let arrived = memory.read(slot(area, message), posted.length);
            let expected = match posted.opcode {
                WqeOpcode::AtomicFetchAdd | WqeOpcode::AtomicCompareSwap => posted.finds.to_le_bytes().to_vec(),
                _ => content(seed, side, message, posted.length),
            };
            assert!(
                arrived == expected,
                "message {message} of side {side}: {:?}",
                posted.opcode
            );
        }
        assert_eq!(peer.memory.read(COUNTER, 8), self.counters[1 - side].to_le_bytes());
    }

    /// Shuts down, and checks that the faults have struck as they should: `messages` tells how often at least.
    fn end(self, rates: Rates, messages: u64) {
        let struck = &self.struck;
        for (rate, count) in [
            (rates.loss, &struck.lost),
            (rates.duplicate, &struck.duplicated),
            (rates.reorder, &struck.reordered),
            (rates.corrupt, &struck.corrupted),
        ] {
            let count = count.load(Ordering::Relaxed);
            // A message takes three packets on average, acknowledgements included.
            assert!(
                count >= messages * u64::from(rate) / 100,
                "{count} faults in {messages} messages"
            );
        }
        let bad: u64 = self.ports.iter().map(|port| port.stats().dropped.bad_icrc).sum();
        assert_eq!(bad > 0, rates.corrupt > 0);
        drop(self.ports);
        self.ends.into_iter().for_each(End::close);
    }
}

fn content(seed: u64, side: usize, message: usize, length: usize) -> Vec<u8> {
    pattern((seed * 2 + side as u64) * MESSAGES as u64 + message as u64, length)
}

/// Exchanges messages with these rates of faults.
fn exchange(rates: Rates, messages: u64) {
    let mut distant = Distant::new(rates, messages);
    for round in 0..messages / (2 * MESSAGES as u64) {
        distant.round(round);
    }
    distant.end(rates, messages);
}

#[test]
fn messages_survive_loss() {
    exchange(
        Rates {
            loss: 1,
            ..Rates::default()
        },
        MANY,
    );
}

#[test]
fn messages_survive_duplication() {
    exchange(
        Rates {
            duplicate: 1,
            ..Rates::default()
        },
        MANY,
    );
}

#[test]
fn messages_survive_reordering() {
    exchange(
        Rates {
            reorder: 1,
            ..Rates::default()
        },
        MANY,
    );
}

#[test]
fn messages_survive_corruption() {
    exchange(
        Rates {
            corrupt: 1,
            ..Rates::default()
        },
        MANY,
    );
}

#[test]
fn messages_survive_all_of_it() {
    exchange(ALL, MANY);
}

#[test]
#[ignore = "long: ten minutes"]
fn a_million_messages_survive_all_of_it() {
    exchange(ALL, 1_000_000);
}
