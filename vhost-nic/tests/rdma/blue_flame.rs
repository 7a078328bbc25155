//! BlueFlame: WQEs written to doorbell registers (`mlx5_bf_copy` of libmlx5, `core/wc.c`).

use std::time::Duration;

use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use vhost_daemon::trace::start_flight_recorder;
use vhost_nic::hca::blue_flame::COPY_TIMEOUT;
use vhost_nic::net::Switch;
use vhost_nic::timeline::{NicTimeline, Scope, stages};

use crate::inspect::Inspect;
use crate::nic::machine_with;
use crate::trace::{chain, name, recorded};

/// Time limit that the driver meets on a busy machine, too.
const FOR_EVER: Option<Duration> = Some(Duration::from_secs(1 << 20));

/// A guest with BlueFlame and two queue pairs connected to each other.
struct Guest {
    node: Node,
    a: QueuePair,
    b: QueuePair,
    memory: Region,
}

impl Guest {
    fn new(blue_flame: Option<Duration>) -> Self {
        let machine = machine_with(&Switch::new(), 1, |config| config.blue_flame = blue_flame);
        let node = Node::open(machine, 1);
        assert_eq!(node.hca.capabilities.bf(), blue_flame.is_some());
        let qp = || QueuePair::create(&node, Shape::new(service::RC)).unwrap();
        let (a, b) = (qp(), qp());
        connect((&node, &a), (&node, &b), &Connection::default());
        let memory = node.region(4096);
        Self { node, a, b, memory }
    }

    /// An inline RDMA write of `bytes` to `offset`.
    fn write(&self, offset: u64, bytes: Vec<u8>) -> Request {
        let (address, key) = (self.memory.at(offset), self.memory.key);
        Request::remote(WqeOpcode::RdmaWrite, vec![Data::Inline(bytes)], address, key)
    }

    fn executed(&self) -> u64 {
        self.node.hca.machine.nic().snapshot().blue_flame_wqes
    }

    fn close(self) {
        self.a.destroy(&self.node).unwrap();
        self.b.destroy(&self.node).unwrap();
        self.memory.destroy(&self.node.hca).unwrap();
        self.node.close();
    }
}

#[test]
fn in_a_trace_the_register_is_the_cause() {
    start_flight_recorder();
    let mut guest = Guest::new(FOR_EVER);
    // The beginning of the first copy is a doorbell, which the NIC's thread may take before the rest arrives.
    for _ in 0..2 {
        let request = guest.write(0, vec![1; 8]);
        let wqe = guest.a.wqe(&request);
        let counter = guest.a.put_bytes(&wqe);
        guest.a.ring_with(0, &wqe);
        guest.a.sent(WqeOpcode::RdmaWrite, counter);
    }
    guest.close();
    let trace = recorded();
    let timeline = NicTimeline::new(&trace);
    let wqe = trace.events.iter().rposition(|event| name(event) == "wqe").unwrap();
    assert_eq!(chain(&trace, &timeline, wqe), [("wqe", 1), ("blue_flame", 1)]);
    assert!(
        stages(&trace, &timeline, Scope::All)
            .to_string()
            .contains("BlueFlame to WQE")
    );
}

/// The driver's test for BlueFlame: the WQE in the ring is unsignaled, the one in the register is signaled.
#[test]
fn the_register_is_what_is_carried_out() {
    let mut guest = Guest::new(FOR_EVER);
    // The first one shows that whole WQEs are written to the register; each half is detected separately.
    for half in [0, 1] {
        let request = guest.write(0, vec![1; 8]);
        let wqe = guest.a.wqe(&request);
        let counter = guest.a.put_bytes(&wqe);
        guest.a.ring_with(half, &wqe);
        guest.a.sent(WqeOpcode::RdmaWrite, counter);
    }
    let before = guest.executed();
    for (index, length) in [8, 28, 60, 200].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x5a).collect();
        let request = guest.write(64, bytes.clone());
        let silent = Request {
            flags: 0,
            ..guest.write(64, vec![0xee; length])
        };
        let wqe = guest.a.wqe(&request);
        let ring = guest.a.wqe(&silent);
        let counter = guest.a.put_bytes(&ring);
        guest.a.ring_with(index as u64 & 1, &wqe);
        guest.a.sent(WqeOpcode::RdmaWrite, counter);
        assert_eq!(guest.memory.read(64, length), bytes);
    }
    assert_eq!(guest.executed() - before, 4);
    guest.close();
}

#[test]
fn a_torn_copy_is_carried_out_from_the_ring() {
    let mut guest = Guest::new(Some(COPY_TIMEOUT));
    for (lost, length) in [(1, 60), (7, 60), (9, 120)] {
        let bytes: Vec<u8> = (0..length).map(|byte| byte as u8 ^ lost).collect();
        let wqe = guest.a.wqe(&guest.write(0, bytes.clone()));
        let counter = guest.a.put_bytes(&wqe);
        guest.a.ring_with_loss(0, &wqe, usize::from(lost));
        guest.a.sent(WqeOpcode::RdmaWrite, counter);
        assert_eq!(guest.memory.read(0, length), bytes);
    }
    assert_eq!(guest.executed(), 0);
    guest.close();
}

#[test]
fn without_the_capability_copies_are_doorbells() {
    let mut guest = Guest::new(None);
    for round in 0..4 {
        let bytes = vec![round; 60];
        let wqe = guest.a.wqe(&guest.write(0, bytes.clone()));
        let counter = guest.a.put_bytes(&wqe);
        guest.a.ring_with(u64::from(round) & 1, &wqe);
        guest.a.sent(WqeOpcode::RdmaWrite, counter);
        assert_eq!(guest.memory.read(0, 60), bytes);
    }
    assert_eq!(guest.executed(), 0);
    guest.close();
}

/// A register may be written with another WQE than the next, or with no WQE at all.
#[test]
fn what_is_in_the_register_is_checked() {
    let mut guest = Guest::new(FOR_EVER);
    let good = guest.write(0, vec![7; 40]);
    // Beyond the producer index, long completed, and of a queue that does not exist.
    let mut wild = guest.a.wqe(&good);
    for (index, number) in [(0x4000_u32, guest.a.number), (0xffff, guest.a.number), (0, 0xff_fff0)] {
        wild[..4].copy_from_slice(&(index << 8 | WqeOpcode::RdmaWrite as u32).to_be_bytes());
        wild[4..7].copy_from_slice(&number.to_be_bytes()[1..]);
        guest.a.ring_with(0, &wild);
    }
    let wqe = guest.a.wqe(&good);
    let counter = guest.a.put_bytes(&wqe);
    guest.a.ring_with(0, &wqe);
    guest.a.sent(WqeOpcode::RdmaWrite, counter);
    assert_eq!(guest.memory.read(0, 40), [7; 40]);
    // An invalid WQE is taken from the register, too.
    let mut bad = guest.a.wqe(&good);
    bad[3] = 0x3f;
    let counter = guest.a.put_bytes(&guest.a.wqe(&good));
    guest.a.ring_with(0, &bad);
    assert_eq!(guest.a.send_error(counter), 0x02);
    guest.close();
}

/// The same with an SQ, for drivers without queue pairs: a NOP that is signaled only in the register.
#[test]
fn nops_complete_as_the_register_says() {
    let mut guest = Guest::new(FOR_EVER);
    let nop = |flags| Request {
        flags,
        ..Request::new(WqeOpcode::Nop, Vec::new())
    };
    for round in 0..20 {
        let loud = guest.a.wqe(&nop(ControlSegment::CQ_UPDATE));
        // The first write of each half may be taken for a doorbell.
        let ring = if round > 1 { guest.a.wqe(&nop(0)) } else { loud.clone() };
        let counter = guest.a.put_bytes(&ring);
        guest.a.ring_with(round & 1, &loud);
        guest.a.sent(WqeOpcode::Nop, counter);
    }
    guest.close();
}
