//! An exchange of all kinds of packets between two guests, with what a capture of it must have.

use std::fs::{self, File};
use std::path::Path;

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::CompletionQueue;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, Q_KEY, QueuePair, Request, Shape, address, connect, service, v1_address};
use mlx5_test_driver::region::Region;
use vhost_nic::net::Switch;
use vhost_nic::net::capture::{Capture, CaptureOptions};

use crate::nic::machine;

/// Bytes of each region.
const SIZE: u64 = 1 << 16;
/// Bytes of the GRH before a datagram.
const GRH: usize = 40;
/// First PSN of requests, and of the peer's.
const PSN: u32 = 0x12_3456;

/// A packet that must be in the capture. Ethernet frames have no transport headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Opcode, destination queue pair and PSN.
    pub transport: Option<(u8, u32, u32)>,
    /// Comment.
    pub comment: String,
}

struct End {
    node: Node,
    memory: Region,
}

impl End {
    fn new(switch: &std::sync::Arc<Switch>, number: u8) -> Self {
        let node = Node::open(machine(switch, number), number);
        let memory = node.region(SIZE);
        memory.write(0, &(0..SIZE).map(|at| (at * 7) as u8).collect::<Vec<_>>());
        Self { node, memory }
    }

    fn part(&self, length: u32) -> (u64, u32, u32) {
        (self.memory.at(0), length, self.memory.key)
    }

    fn data(&self, length: u32) -> Vec<Data> {
        vec![Data::Memory(self.part(length))]
    }
}

/// Entries that were written to a CQ, by the names that comments have for them.
struct Cqes(u32, u32);

impl Cqes {
    fn of(cq: &CompletionQueue) -> Self {
        Self(cq.number, 0)
    }

    fn next(&mut self) -> String {
        self.1 += 1;
        format!("CQE {} of CQ {:#x}", self.1 - 1, self.0)
    }
}

/// Packets of one connection or pair of datagram queue pairs.
struct Flow<'a> {
    a: &'a QueuePair,
    b: &'a QueuePair,
    sent: Cqes,
    received: Cqes,
    /// Next PSN.
    psn: u32,
    all: &'a mut Vec<Expected>,
}

impl<'a> Flow<'a> {
    fn new(a: &'a QueuePair, b: &'a QueuePair, psn: u32, all: &'a mut Vec<Expected>) -> Self {
        Self {
            sent: Cqes::of(&a.send_cq),
            received: Cqes::of(&b.receive_cq),
            a,
            b,
            psn,
            all,
        }
    }

    fn request(&mut self, wqe: u16, opcode: u8, name: &str, effects: &str) {
        let comment = format!(
            "nic1: QP {:#x}, WQE {wqe}, PSN {:#x}, {name}{effects}",
            self.a.number, self.psn
        );
        self.all.push(Expected {
            transport: Some((opcode, self.b.number, self.psn)),
            comment,
        });
        self.psn += 1;
    }

    fn response(&mut self, psn: u32, opcode: u8, name: &str, effects: &str) {
        let comment = format!("nic2: QP {:#x}, PSN {psn:#x}, {name}{effects}", self.b.number);
        self.all.push(Expected {
            transport: Some((opcode, self.a.number, psn)),
            comment,
        });
    }

    /// Effect that ends a send WQE, with a CQE if it is signaled.
    fn ends(&mut self, wqe: u16, signaled: bool) -> String {
        let cqe = if signaled {
            self.sent.next()
        } else {
            "no CQE".to_owned()
        };
        format!("; nic1: ends WQE {wqe} of QP {:#x}: {cqe}", self.a.number)
    }

    fn ends_receive(&mut self, wqe: u16) -> String {
        let cqe = self.received.next();
        format!("; nic2: ends receive WQE {wqe} of QP {:#x}: {cqe}", self.b.number)
    }

    fn answers(&self, wqe: u16) -> String {
        format!("; nic1: answers WQE {wqe} of QP {:#x}", self.a.number)
    }
}

/// Lets two guests exchange packets of every kind, captures that to `path`, and returns what the capture must have.
pub fn capture(path: &Path) -> Vec<Expected> {
    let switch = Switch::new();
    let ends = [1, 2].map(|number| End::new(&switch, number));
    let (a, b) = (&ends[0], &ends[1]);
    let how = Connection {
        psn: (PSN, PSN),
        ..Connection::default()
    };
    // The numbers of b's queues differ from those of a.
    let other = QueuePair::create(&b.node, Shape::new(service::RC)).unwrap();
    let pair = |service, v1| {
        let [x, y] = [a, b].map(|end| QueuePair::create(&end.node, Shape::new(service)).unwrap());
        connect((&a.node, &x), (&b.node, &y), &Connection { v1, ..how });
        (x, y)
    };
    let [mut reliable, mut unreliable, mut datagrams] =
        [service::RC, service::UC, service::UD].map(|service| pair(service, false));
    let [mut reliable_v1, mut datagrams_v1] = [service::RC, service::UD].map(|service| pair(service, true));
    let mut netdevs = [a, b].map(|end| Netdev::open(&end.node.hca, &Options::default()));
    let capture = Capture::start(&switch, File::create_new(path).unwrap(), &CaptureOptions::default()).unwrap();

    let mut expected = Vec::new();
    connected(a, b, &mut reliable, &mut expected);
    unconnected(a, b, &mut unreliable, &mut datagrams, &mut expected);
    frame(&mut netdevs, &mut expected);
    refused(a, b, &mut reliable, &mut expected);
    version_1(a, b, &mut reliable_v1, &mut datagrams_v1, &mut expected);

    for (end, netdev) in [a, b].into_iter().zip(netdevs) {
        netdev.close();
        for (x, y) in [&reliable, &unreliable, &datagrams, &reliable_v1, &datagrams_v1] {
            let qp = if std::ptr::eq(end, a) { x } else { y };
            qp.destroy(&end.node).unwrap();
        }
    }
    drop(capture);
    other.destroy(&b.node).unwrap();
    assert_ne!(fs::metadata(path).unwrap().len(), 0);
    for End { node, memory } in ends {
        memory.destroy(&node.hca).unwrap();
        node.close();
    }
    expected
}

/// Sends, writes, a read and atomics on a reliable connection.
fn connected(a: &End, b: &End, pair: &mut (QueuePair, QueuePair), all: &mut Vec<Expected>) {
    let (x, y) = pair;
    let remote = |opcode, length| Request::remote(opcode, a.data(length), b.memory.at(8192), b.memory.key);

    let receive = y.receive(&[b.part(4096)]);
    let send = x.post(&Request::new(WqeOpcode::Send, a.data(2500)));
    y.received(CqeOpcode::ResponderSend, receive, 2500);
    x.sent(WqeOpcode::Send, send);

    // The first is silent: the acknowledgement ends both.
    let receive_immediate = y.receive(&[]);
    let silent = x.put(&Request {
        flags: 0,
        ..remote(WqeOpcode::RdmaWrite, 100)
    });
    let write = x.post(&Request {
        immediate: 5,
        ..remote(WqeOpcode::RdmaWriteImmediate, 1025)
    });
    y.received(CqeOpcode::ResponderWriteImmediate, receive_immediate, 1025);
    x.sent(WqeOpcode::RdmaWriteImmediate, write);

    let read = x.post(&remote(WqeOpcode::RdmaRead, 2100));
    x.sent(WqeOpcode::RdmaRead, read);
    let add = x.post(&Request {
        operands: Some((1, 0)),
        ..remote(WqeOpcode::AtomicFetchAdd, 8)
    });
    x.sent(WqeOpcode::AtomicFetchAdd, add);
    let swap = x.post(&Request {
        operands: Some((1, 0)),
        ..remote(WqeOpcode::AtomicCompareSwap, 8)
    });
    x.sent(WqeOpcode::AtomicCompareSwap, swap);

    let mut flow = Flow::new(x, y, PSN, all);
    flow.request(send, 0x00, "RC SEND First", "");
    flow.request(send, 0x01, "RC SEND Middle", "");
    let effects = flow.ends_receive(receive);
    flow.request(send, 0x02, "RC SEND Last", &effects);
    let effects = flow.ends(send, true);
    flow.response(PSN + 2, 0x11, "RC Acknowledge", &effects);

    flow.request(silent, 0x0a, "RC RDMA WRITE Only", "");
    flow.request(write, 0x06, "RC RDMA WRITE First", "");
    let effects = flow.ends_receive(receive_immediate);
    flow.request(write, 0x09, "RC RDMA WRITE Last with Immediate", &effects);
    let effects = [flow.ends(silent, false), flow.ends(write, true)].concat();
    flow.response(PSN + 5, 0x11, "RC Acknowledge", &effects);

    flow.request(read, 0x0c, "RC RDMA READ Request", "");
    let answers = flow.answers(read);
    flow.response(PSN + 6, 0x0d, "RC RDMA READ response First", &answers);
    flow.response(PSN + 7, 0x0e, "RC RDMA READ response Middle", &answers);
    let effects = flow.ends(read, true);
    flow.response(PSN + 8, 0x0f, "RC RDMA READ response Last", &effects);

    flow.psn = PSN + 9;
    for (wqe, opcode, name) in [(add, 0x14, "RC FetchAdd"), (swap, 0x13, "RC CmpSwap")] {
        let psn = flow.psn;
        flow.request(wqe, opcode, name, "");
        let effects = flow.ends(wqe, true);
        flow.response(psn, 0x12, "RC ATOMIC Acknowledge", &effects);
    }
}

/// A write on an unreliable connection, and datagrams: the last packet of a WQE ends it.
fn unconnected(
    a: &End,
    b: &End,
    unreliable: &mut (QueuePair, QueuePair),
    datagrams: &mut (QueuePair, QueuePair),
    all: &mut Vec<Expected>,
) {
    let (x, y) = unreliable;
    let write = x.post(&Request::remote(
        WqeOpcode::RdmaWrite,
        a.data(1500),
        b.memory.at(8192),
        b.memory.key,
    ));
    x.sent(WqeOpcode::RdmaWrite, write);
    let mut flow = Flow::new(x, y, PSN, all);
    flow.request(write, 0x26, "UC RDMA WRITE First", "");
    let effects = flow.ends(write, true);
    flow.request(write, 0x28, "UC RDMA WRITE Last", &effects);

    let (x, y) = datagrams;
    let mut posted = Vec::new();
    for length in [3, 600] {
        let receive = y.receive(&[b.part(4096)]);
        let send = x.post(&Request {
            to: Some(address(&b.node, y.number, Q_KEY)),
            immediate: 7,
            ..Request::new(WqeOpcode::SendImmediate, a.data(length))
        });
        y.received(CqeOpcode::ResponderSendImmediate, receive, GRH + length as usize);
        x.sent(WqeOpcode::SendImmediate, send);
        posted.push((send, receive));
    }
    let mut flow = Flow::new(x, y, PSN, all);
    for (send, receive) in posted {
        let effects = [flow.ends_receive(receive), flow.ends(send, true)].concat();
        flow.request(send, 0x65, "UD SEND Only with Immediate", &effects);
    }
}

/// A send and a datagram of RoCE v1.
fn version_1(
    a: &End,
    b: &End,
    reliable: &mut (QueuePair, QueuePair),
    datagrams: &mut (QueuePair, QueuePair),
    all: &mut Vec<Expected>,
) {
    let (x, y) = reliable;
    let receive = y.receive(&[b.part(4096)]);
    let send = x.post(&Request::new(WqeOpcode::Send, a.data(1501)));
    y.received(CqeOpcode::ResponderSend, receive, 1501);
    x.sent(WqeOpcode::Send, send);
    let mut flow = Flow::new(x, y, PSN, all);
    flow.request(send, 0x00, "RC SEND First", "");
    let effects = flow.ends_receive(receive);
    flow.request(send, 0x02, "RC SEND Last", &effects);
    let effects = flow.ends(send, true);
    flow.response(PSN + 1, 0x11, "RC Acknowledge", &effects);

    let (x, y) = datagrams;
    let receive = y.receive(&[b.part(4096)]);
    let send = x.post(&Request {
        to: Some(v1_address(&b.node, y.number, Q_KEY)),
        ..Request::new(WqeOpcode::Send, a.data(42))
    });
    y.received(CqeOpcode::ResponderSend, receive, GRH + 42);
    x.sent(WqeOpcode::Send, send);
    let mut flow = Flow::new(x, y, PSN, all);
    let effects = [flow.ends_receive(receive), flow.ends(send, true)].concat();
    flow.request(send, 0x64, "UD SEND Only", &effects);
}

/// A frame of the network interface.
fn frame([a, b]: &mut [Netdev; 2], all: &mut Vec<Expected>) {
    let mut frame = [&b.hca.machine.mac[..], &a.hca.machine.mac, &[0x88, 0xb5]].concat();
    frame.resize(100, 0x5a);
    a.send(&frame);
    assert_eq!(b.receive().frame, frame);
    let (sender, receiver) = (&a.channels[0], &b.channels[0]);
    let (sq, rq) = (sender.sq.number, receiver.rq.number);
    let (sent, received) = (sender.send_cq.number, receiver.receive_cq.number);
    all.push(Expected {
        transport: None,
        comment: format!(
            "nic1: SQ {sq:#x}, WQE 0; nic2: ends receive WQE 0 of RQ {rq:#x}: CQE 0 of CQ {received:#x}; \
             nic1: ends WQE 0 of SQ {sq:#x}: CQE 0 of CQ {sent:#x}"
        ),
    });
}

/// A write that the responder refuses.
fn refused(a: &End, b: &End, pair: &mut (QueuePair, QueuePair), all: &mut Vec<Expected>) {
    let (x, y) = pair;
    let request = Request::remote(WqeOpcode::RdmaWrite, a.data(8), b.memory.at(0), b.memory.key ^ 0xff);
    let write = x.post(&request);
    assert_eq!(x.send_error(write), 0x13);
    let mut flow = Flow::new(x, y, PSN + 11, all);
    flow.request(write, 0x0a, "RC RDMA WRITE Only", "");
    let (number, cq) = (x.number, x.send_cq.number);
    let effects = format!("; nic1: ends WQE {write} of QP {number:#x}: error CQE 5 of CQ {cq:#x}, syndrome 0x13");
    flow.response(PSN + 11, 0x11, "RC Acknowledge", &effects);
}
