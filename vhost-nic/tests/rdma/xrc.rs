//! XRC: packets name the shared receive queue.

use std::thread;

use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::cq::{CompletionQueue, error_of};
use mlx5_test_driver::domain::{alloc_xrcd, dealloc_xrcd};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::srq::Srq;
use vhost_nic::net::Switch;
use vhost_nic::roce::headers::{Bth, Headers, XrcEth};
use vhost_nic::roce::opcode::Opcode;
use vhost_nic::roce::psn::Psn;
use vhost_nic::roce::syndrome::{Nak, Syndrome as RoceSyndrome};

use crate::nic::machine;
use crate::pair::{Pair, hears, is_in_error, pattern};
use crate::raw_peer::RawPeer;

#[test]
fn xrc_messages_go_to_the_shared_queue_they_name() {
    let pair = Pair::unconnected(Shape::new(service::RC), Shape::new(service::RC));
    let (a, b) = (pair.a, pair.b);
    let xrcd = alloc_xrcd(&b.node.hca).unwrap();
    let mut cqs = [0, 1].map(|_| b.node.completion_queue(6, false));
    let mut queues = [0, 1].map(|index| Srq::xrc(&b.node.hca, b.node.pd, xrcd, &cqs[index], 4).unwrap());
    let mut initiator = QueuePair::create(&a.node, Shape::new(service::XRC)).unwrap();
    let shape = Shape {
        sends: false,
        xrcd,
        ..Shape::new(service::XRC)
    };
    let target = QueuePair::create(&b.node, shape).unwrap();
    connect((&a.node, &initiator), (&b.node, &target), &Connection::default());
    for round in 0..12_u64 {
        let index = round as usize % 2;
        let data = pattern(round, 3000);
        a.memory.write(0, &data);
        let receive = queues[index].post(&[b.part(round * 3000, 3000)]);
        let mut request = Request::new(WqeOpcode::Send, a.data(0, 3000));
        request.xrc_srqn = Some(queues[index].number);
        request.flags |= ControlSegment::SOLICITED;
        let send = initiator.post(&request);
        initiator.sent(WqeOpcode::Send, send);
        let cqe = cqs[index].wait();
        cqs[index].release();
        assert_eq!((cqe.wqe_counter.get(), cqe.byte_count.get()), (receive, 3000));
        assert_eq!(cqe.srqn_uidx.get(), 0xabcd);
        assert!(b.memory.read(round * 3000, 3000) == data);
        let mut request = Request::remote(
            WqeOpcode::RdmaRead,
            a.data(100_000, 3000),
            b.memory.at(round * 3000),
            b.memory.key,
        );
        request.xrc_srqn = Some(0);
        let read = initiator.post(&request);
        initiator.sent(WqeOpcode::RdmaRead, read);
        assert!(a.memory.read(100_000, 3000) == data);
    }
    initiator.destroy(&a.node).unwrap();
    target.destroy(&b.node).unwrap();
    for (queue, cq) in queues.iter().zip(&cqs) {
        queue.destroy(&b.node.hca).unwrap();
        cq.destroy(&b.node.hca).unwrap();
    }
    dealloc_xrcd(&b.node.hca, xrcd).unwrap();
    Pair { a, b, wire: pair.wire }.end();
}

#[test]
fn a_shared_queue_begins_anywhere_in_its_first_page() {
    let pair = Pair::unconnected(Shape::new(service::RC), Shape::new(service::RC));
    let (a, b) = (pair.a, pair.b);
    let xrcd = alloc_xrcd(&b.node.hca).unwrap();
    let mut cq = b.node.completion_queue(6, false);
    let mut initiator = QueuePair::create(&a.node, Shape::new(service::XRC)).unwrap();
    let target = QueuePair::create(&b.node, target_shape(xrcd)).unwrap();
    connect((&a.node, &initiator), (&b.node, &target), &Connection::default());
    // The driver uses the largest pages that the guest's memory allows.
    for place in [(0, 0), (0, 32), (1, 31), (1, 32), (2, 48), (3, 63)] {
        let mut queue = Srq::xrc_at(&b.node.hca, b.node.pd, xrcd, &cq, 6, place).unwrap();
        for round in 0..100_u64 {
            let data = pattern(round, 1500);
            a.memory.write(0, &data);
            let receive = queue.post(&[b.part(round * 1500, 1500)]);
            let mut request = Request::new(WqeOpcode::Send, a.data(0, 1500));
            request.xrc_srqn = Some(queue.number);
            let send = initiator.post(&request);
            initiator.sent(WqeOpcode::Send, send);
            let cqe = cq.wait();
            cq.release();
            assert_eq!(error_of(&cqe), None, "{place:?}");
            assert_eq!((cqe.wqe_counter.get(), cqe.byte_count.get()), (receive, 1500));
            assert!(b.memory.read(round * 1500, 1500) == data, "{place:?} {round}");
        }
        queue.destroy(&b.node.hca).unwrap();
    }
    initiator.destroy(&a.node).unwrap();
    target.destroy(&b.node).unwrap();
    cq.destroy(&b.node.hca).unwrap();
    dealloc_xrcd(&b.node.hca, xrcd).unwrap();
    Pair { a, b, wire: pair.wire }.end();
}

/// Sends, writes, and reads that name `srqn`, each on a connection of its own, are refused as invalid requests.
fn refuses(pair: &Pair, xrcd: u32, srqn: u32, opcodes: &[WqeOpcode]) {
    let (a, b) = (&pair.a, &pair.b);
    for &opcode in opcodes {
        let mut initiator = QueuePair::create(&a.node, Shape::new(service::XRC)).unwrap();
        let target = QueuePair::create(&b.node, target_shape(xrcd)).unwrap();
        connect((&a.node, &initiator), (&b.node, &target), &Connection::default());
        let mut request = match opcode {
            WqeOpcode::Send => Request::new(opcode, a.data(0, 3000)),
            _ => pair.request(opcode, a.data(0, 3000), 0),
        };
        request.xrc_srqn = Some(srqn);
        let counter = initiator.post(&request);
        assert_eq!(
            initiator.send_error(counter),
            Syndrome::RemoteInvalidRequest as u8,
            "{opcode:?}"
        );
        hears(&b.node, EventType::WqInvalidRequestError, target.number);
        is_in_error(&b.node, &target);
        initiator.destroy(&a.node).unwrap();
        target.destroy(&b.node).unwrap();
    }
}

#[test]
fn a_shared_queue_of_another_domain_is_out_of_reach() {
    let pair = Pair::unconnected(Shape::new(service::RC), Shape::new(service::RC));
    let b = &pair.b;
    let [own, foreign] = [0, 1].map(|_| alloc_xrcd(&b.node.hca).unwrap());
    let mut cq = b.node.completion_queue(6, false);
    let mut queue = Srq::xrc(&b.node.hca, b.node.pd, foreign, &cq, 4).unwrap();
    queue.post(&[b.part(0, 3000)]);
    pair.a.memory.write(0, &pattern(1, 3000));
    let opcodes = [
        WqeOpcode::Send,
        WqeOpcode::RdmaWrite,
        WqeOpcode::RdmaWriteImmediate,
        WqeOpcode::RdmaRead,
    ];
    refuses(&pair, own, queue.number, &opcodes);
    assert!(b.memory.read(0, 3000) == [0; 3000], "data of a refused request");
    assert!(
        pair.a.memory.read(0, 3000) == pattern(1, 3000),
        "data of a refused read"
    );
    assert!(cq.poll().is_none());
    queue.destroy(&b.node.hca).unwrap();
    cq.destroy(&b.node.hca).unwrap();
    for xrcd in [own, foreign] {
        dealloc_xrcd(&b.node.hca, xrcd).unwrap();
    }
    pair.end();
}

#[test]
fn a_message_to_a_shared_queue_that_does_not_exist_is_refused() {
    let pair = Pair::unconnected(Shape::new(service::RC), Shape::new(service::RC));
    let xrcd = alloc_xrcd(&pair.b.node.hca).unwrap();
    let opcodes = [WqeOpcode::Send, WqeOpcode::RdmaWriteImmediate];
    refuses(&pair, xrcd, 0x12_3456, &opcodes);
    dealloc_xrcd(&pair.b.node.hca, xrcd).unwrap();
    pair.end();
}

#[test]
fn the_domain_of_a_target_exists_as_long_as_the_target() {
    let node = Node::open(machine(&Switch::new(), 1), 1);
    let xrcd = alloc_xrcd(&node.hca).unwrap();
    let target = QueuePair::create(&node, target_shape(xrcd)).unwrap();
    assert!(dealloc_xrcd(&node.hca, xrcd).is_err());
    target.destroy(&node).unwrap();
    dealloc_xrcd(&node.hca, xrcd).unwrap();
    assert!(QueuePair::create(&node, target_shape(xrcd)).is_err());
}

/// A peer that names one queue in the first packet of a message, and another in the last.
#[test]
fn a_message_stays_with_the_queue_that_it_began_in() {
    const QPN: u32 = 0x77;
    let switch = Switch::new();
    let peer = RawPeer::new(&switch, 9);
    let node = Node::open(machine(&switch, 1), 1);
    let xrcd = alloc_xrcd(&node.hca).unwrap();
    let memory = node.region(8192);
    let mut cqs = [0, 1].map(|_| node.completion_queue(6, false));
    let mut queues = [0, 1].map(|index| Srq::xrc(&node.hca, node.pd, xrcd, &cqs[index], 4).unwrap());
    let posted = [0, 1].map(|index: usize| queues[index].post(&[(memory.at(4096 * index as u64), 4096, memory.key)]));
    let target = QueuePair::create(&node, target_shape(xrcd)).unwrap();
    let how = Connection::default();
    target.initialize(&node, &how).unwrap();
    target
        .make_ready_to_receive(&node, (peer.mac, peer.gid), QPN, &how)
        .unwrap();
    let send = |psn, opcode, queue: &Srq| {
        let bth = Bth::new(Opcode::from_byte(opcode).unwrap(), target.number, Psn::new(psn)).with_ack_request(true);
        let mut headers = Headers::new(bth);
        headers.xrc = Some(XrcEth::new(queue.number));
        peer.send(&peer.packet(&node, &headers, &vec![0x5a; how.mtu()]));
        let answers = peer.packets();
        let [answer] = &answers[..] else {
            panic!("{} answers", answers.len())
        };
        RoceSyndrome::from_byte(answer.headers.aeth.unwrap().syndrome)
    };
    // SEND First and SEND Last of XRC.
    let first = send(how.psn.1, 0xa0, &queues[0]);
    assert!(matches!(first, Some(RoceSyndrome::Ack { .. })), "{first:?}");
    let last = send(how.psn.1 + 1, 0xa2, &queues[1]);
    assert_eq!(last, Some(RoceSyndrome::Nak(Nak::InvalidRequest)));
    hears(&node, EventType::WqInvalidRequestError, target.number);
    // The WQE is flushed to the queue it was posted to.
    let cqe = cqs[0].wait();
    cqs[0].release();
    assert_eq!(error_of(&cqe), Some((Syndrome::WrFlush as u8, posted[0])));
    assert_eq!(cqe.srqn_uidx.get(), 0xabcd);
    assert!(cqs.iter_mut().all(|cq| cq.poll().is_none()));
    target.destroy(&node).unwrap();
    for (queue, cq) in queues.iter().zip(&cqs) {
        queue.destroy(&node.hca).unwrap();
        cq.destroy(&node.hca).unwrap();
    }
    memory.destroy(&node.hca).unwrap();
    dealloc_xrcd(&node.hca, xrcd).unwrap();
    node.close();
}

fn target_shape(xrcd: u32) -> Shape {
    Shape {
        sends: false,
        xrcd,
        ..Shape::new(service::XRC)
    }
}

/// One side of a program that uses loopback.
struct Side {
    xrcd: u32,
    cq: CompletionQueue,
    queue: Srq,
    initiators: Vec<QueuePair>,
    targets: Vec<QueuePair>,
    memory: Region,
}

/// Number of connections between the sides.
const CONNECTIONS: usize = 3;
/// Number of receives posted at a time, and their bytes.
const SLOTS: u64 = 8;
const SLOT: u64 = 2500;
/// Log2 of the WQEs of the SRQ: so many that no index is reused while its receive is in use.
const LOG_PLACES: u8 = 6;
/// Number of messages of each side.
const MESSAGES: u64 = 3000;

/// Number of the sender, which its messages depend on.
#[derive(Clone, Copy)]
struct Sender(u64);

impl Sender {
    fn message(self, number: u64) -> Vec<u8> {
        pattern(self.0 << 32 | number, 1 + (number * 613 % SLOT) as usize)
    }
}

impl Side {
    fn new(node: &Node) -> Self {
        let xrcd = alloc_xrcd(&node.hca).unwrap();
        let cq = node.completion_queue(9, false);
        let create = |shape| {
            (0..CONNECTIONS)
                .map(|_| QueuePair::create(node, shape).unwrap())
                .collect()
        };
        Self {
            xrcd,
            queue: Srq::xrc(&node.hca, node.pd, xrcd, &cq, LOG_PLACES).unwrap(),
            cq,
            initiators: create(Shape::new(service::XRC)),
            targets: create(target_shape(xrcd)),
            memory: node.region(1 << 16),
        }
    }

    fn part(&self, slot: u64) -> (u64, u32, u32) {
        (self.memory.at(slot * SLOT), SLOT as u32, self.memory.key)
    }

    /// Sends and receives until all messages have arrived. Reposts receives while other messages arrive.
    fn run(&mut self, other: u32, own: Sender, peer: Sender) {
        let (mut sent, mut acknowledged, mut received) = (0, 0, 0);
        // Buffer of each posted receive, by WQE index.
        let mut slots = [0; 1 << LOG_PLACES];
        for slot in 0..SLOTS {
            slots[slot as usize] = slot;
            self.queue.post(&[self.part(slot)]);
        }
        while acknowledged < MESSAGES || received < MESSAGES {
            // One message in flight on each connection.
            while sent < MESSAGES && sent - acknowledged < CONNECTIONS as u64 {
                let connection = sent % CONNECTIONS as u64;
                let (at, data) = ((SLOTS + connection) * SLOT, own.message(sent));
                self.memory.write(at, &data);
                let part = Data::Memory((self.memory.at(at), data.len() as u32, self.memory.key));
                let mut request = Request::new(WqeOpcode::SendImmediate, vec![part]);
                request.immediate = sent as u32;
                request.xrc_srqn = Some(other);
                self.initiators[connection as usize].post(&request);
                sent += 1;
            }
            let initiator = &mut self.initiators[acknowledged as usize % CONNECTIONS];
            if acknowledged < sent
                && let Some(cqe) = initiator.send_cq.poll()
            {
                initiator.send_cq.release();
                assert_eq!(error_of(&cqe), None, "send {acknowledged}: {cqe:02x?}");
                acknowledged += 1;
            }
            if let Some(cqe) = self.cq.poll() {
                self.cq.release();
                assert_eq!(error_of(&cqe), None, "receive {received}: {cqe:02x?}");
                let number = cqe.immediate.get().into();
                let slot = slots[usize::from(cqe.wqe_counter.get())];
                let data = peer.message(number);
                assert_eq!(cqe.byte_count.get() as usize, data.len());
                assert!(self.memory.read(slot * SLOT, data.len()) == data, "message {number}");
                received += 1;
                let next = self.queue.post(&[self.part(slot)]);
                slots[usize::from(next)] = slot;
            }
        }
        assert!(self.cq.poll().is_none(), "more messages received than sent");
    }

    fn close(self, node: &Node) {
        for qp in self.initiators.iter().chain(&self.targets) {
            qp.destroy(node).unwrap();
        }
        self.queue.destroy(&node.hca).unwrap();
        self.cq.destroy(&node.hca).unwrap();
        self.memory.destroy(&node.hca).unwrap();
        dealloc_xrcd(&node.hca, self.xrcd).unwrap();
    }
}

#[test]
fn both_ways_at_once_in_one_guest_while_receives_are_posted() {
    let node = Node::open(machine(&Switch::new(), 1), 1);
    let (mut one, mut two) = (Side::new(&node), Side::new(&node));
    let how = Connection::default();
    for (from, to) in [(&one, &two), (&two, &one)] {
        for (initiator, target) in from.initiators.iter().zip(&to.targets) {
            connect((&node, initiator), (&node, target), &how);
        }
    }
    let (first, second) = (one.queue.number, two.queue.number);
    thread::scope(|scope| {
        scope.spawn(|| one.run(second, Sender(1), Sender(2)));
        scope.spawn(|| two.run(first, Sender(2), Sender(1)));
    });
    one.close(&node);
    two.close(&node);
    node.close();
}
