//! Loads of guests: traffic with checked data, resets and deaths under traffic, attacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::fuzz::{commands, exchange, wqes};
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::wait::await_some;

use crate::host::Seat;

/// Ether type for local experiments (IEEE 802).
const LOCAL_EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Time after which a frame is sent again: a full receive queue loses it.
const RESEND: Duration = Duration::from_millis(200);
/// Bytes of each message that an interruption hits, and their number in each direction.
const LENGTH: u64 = 1 << 16;
const MESSAGES: u64 = 8;
/// Bytes of the input of an attack.
const INPUT: usize = 4096;

/// Progress of a load, and the signal that ends all loads.
pub struct Life<'a> {
    /// Set when all are to stop.
    pub ending: &'a AtomicBool,
    /// Number of rounds of the load so far.
    pub done: &'a AtomicU64,
}

impl Life<'_> {
    /// Counts one more. Returns whether another one follows.
    fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        !self.ending.load(Ordering::Relaxed)
    }
}

/// Ends the others of a crowd if one fails.
impl Drop for Life<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ending.store(true, Ordering::Relaxed);
        }
    }
}

/// A frame from which its number can be told, and from that every byte.
fn numbered(from: [u8; 6], to: [u8; 6], number: u64) -> Vec<u8> {
    let length = 60 + (number * 7919 % 1400) as usize;
    let mut frame = [&to[..], &from, &LOCAL_EXPERIMENTAL, &number.to_be_bytes()].concat();
    frame.extend((frame.len()..length).map(|at| (number as usize ^ at) as u8));
    frame
}

/// Sends a frame until it arrives. Of the same sender, only earlier ones may come before it, whole.
fn ferry(from: &mut Netdev, to: &mut Netdev, number: u64) {
    let macs = [from.hca.machine.mac, to.hca.machine.mac];
    let frame = numbered(macs[0], macs[1], number);
    await_some("a frame", || {
        from.send(&frame);
        let until = Instant::now() + RESEND;
        while Instant::now() < until {
            let Some((_, received)) = to.poll() else {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            };
            let received = received.frame;
            if received == frame {
                return Some(());
            }
            if received[6..12] == macs[0] && received[12..14] == LOCAL_EXPERIMENTAL {
                let earlier = u64::from_be_bytes(received[14..22].try_into().unwrap());
                assert!(earlier < number && received == numbered(macs[0], macs[1], earlier));
            }
        }
        None
    });
}

/// Exchanges data between two guests over RDMA and Ethernet, and compares every byte.
pub fn talk(seats: [&Seat; 2], life: &Life<'_>) {
    let nodes = seats.map(Seat::node);
    let mut nets = nodes
        .each_ref()
        .map(|node| Netdev::open(&node.hca, &Options::default()));
    let mut number = 0;
    loop {
        exchange(&nodes[0], &nodes[1]);
        let [first, second] = &mut nets;
        ferry(first, second, number);
        ferry(second, first, number);
        number += 1;
        if !life.goes_on() {
            break;
        }
    }
    nets.into_iter().for_each(Netdev::close);
    nodes.into_iter().for_each(Node::close);
}

/// Connected queue pairs with messages on their way in both directions.
struct Stream {
    ends: [QueuePair; 2],
    regions: [Region; 2],
}

impl Stream {
    fn start(nodes: [&Node; 2]) -> Self {
        let mut ends = nodes.map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
        let regions = nodes.map(|node| node.region(LENGTH * MESSAGES));
        let how = Connection {
            retry_count: 1,
            ..Connection::default()
        };
        connect((nodes[0], &ends[0]), (nodes[1], &ends[1]), &how);
        for number in 0..MESSAGES {
            let at = number * LENGTH;
            for (side, opcode) in [
                (0, WqeOpcode::RdmaWrite),
                (0, WqeOpcode::RdmaRead),
                (1, WqeOpcode::RdmaWrite),
            ] {
                let (own, other) = (&regions[side], &regions[1 - side]);
                let data = vec![Data::Memory((own.at(at), LENGTH as u32, own.key))];
                ends[side].post(&Request::remote(opcode, data, other.at(at), other.key));
            }
        }
        Self { ends, regions }
    }

    /// Destroys the objects of the first guest; those of the second went with it.
    fn abandon(self, first: &Node) {
        self.ends[0].destroy(first).unwrap();
        self.regions[0].destroy(&first.hca).unwrap();
    }
}

/// Interruption of the second guest of a stream.
#[derive(Debug, Clone, Copy)]
pub enum Interruption {
    /// The function is reset, and another driver boots.
    Reset,
    /// The VMM disconnects, and another one connects.
    Death,
}

/// Interrupts the second guest, with messages in flight to it and from it.
pub fn interrupt([peer, victim]: [&Seat; 2], how: Interruption, life: &Life<'_>) {
    let peer = peer.node();
    let mut machine = victim.machine();
    loop {
        let node = victim.boot(machine);
        let stream = Stream::start([&peer, &node]);
        machine = match how {
            Interruption::Reset => {
                let machine = Arc::clone(&node.hca.machine);
                machine.device().reset();
                drop(node);
                stream.abandon(&peer);
                let machine = Arc::into_inner(machine).expect("the driver is gone");
                machine.enable();
                machine
            }
            Interruption::Death => {
                drop(node);
                stream.abandon(&peer);
                victim.machine()
            }
        };
        if !life.goes_on() {
            break;
        }
    }
    drop(machine);
    peer.close();
}

/// Runs random inputs of the fuzz drivers on two guests, which leave without a shutdown.
pub fn attack(seats: [&Seat; 2], seed: u64, with_wqes: bool, life: &Life<'_>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut input = vec![0; INPUT];
    loop {
        random.fill(&mut input);
        // Without accesses outside registers: no VMM passes these on.
        match with_wqes && random.bool() {
            true => wqes::run(seats.map(Seat::node), &input),
            false => commands::run(seats[0].machine(), &input),
        };
        if !life.goes_on() {
            break;
        }
    }
}
