//! Two guests with connected queue pairs and a region each.

use std::sync::Arc;

use mlx5_prm::queue_entry::EventType;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::wait::eventually;
use vhost_daemon::fault::Faults;
use vhost_nic::fault::NicFault;
use vhost_nic::net::Switch;
use vhost_nic::nic::NicConfig;

use crate::faulty::faulty_machine;
use crate::nic::machine_with;
use crate::recorded::{Recording, faulty_recorded_machine, recorded_machine};
use crate::wire::Wire;

/// State of a queue pair in error.
const ERROR: u8 = 6;
/// Bytes of each region.
pub const SIZE: u64 = 3 << 20;

/// One side of a pair.
pub struct End {
    /// Guest.
    pub node: Node,
    /// Queue pair.
    pub qp: QueuePair,
    /// Region.
    pub memory: Region,
}

/// Two guests, connected by a wire.
pub struct Pair {
    /// Requester.
    pub a: End,
    /// Responder.
    pub b: End,
    /// Wire between the two switches.
    pub wire: Wire,
}

impl End {
    fn new(machine: Machine, number: u8, shape: Shape) -> Self {
        Self::of_node(Node::open(machine, number), shape)
    }

    /// A queue pair in reset, and a region, of a guest.
    pub fn of_node(node: Node, shape: Shape) -> Self {
        let qp = QueuePair::create(&node, shape).unwrap();
        let memory = node.region(SIZE);
        Self { node, qp, memory }
    }

    /// Scatter entry of a part of the region.
    pub fn part(&self, offset: u64, length: usize) -> (u64, u32, u32) {
        (self.memory.at(offset), length as u32, self.memory.key)
    }

    /// The same part as the data of a request.
    pub fn data(&self, offset: u64, length: usize) -> Vec<Data> {
        vec![Data::Memory(self.part(offset, length))]
    }

    /// Shuts the guest down. Panics if an object is left.
    pub fn close(self) {
        self.qp.destroy(&self.node).unwrap();
        self.memory.destroy(&self.node.hca).unwrap();
        self.node.close();
    }
}

impl Pair {
    /// Two guests with a connected queue pair each.
    pub fn new(shape: Shape, how: &Connection) -> Self {
        Self::configured(shape, how, |_| {})
    }

    /// Two guests with a connected queue pair each, and changes to the configuration of their NICs.
    pub fn configured(shape: Shape, how: &Connection, configure: impl Fn(&mut NicConfig)) -> Self {
        let pair = Self::assemble(shape, shape, configure);
        connect((&pair.a.node, &pair.a.qp), (&pair.b.node, &pair.b.qp), how);
        pair
    }

    /// Two guests with a connected queue pair each, `nic1` and `nic2` in plans of faults, at one switch or at two that
    /// a wire connects.
    pub fn faulty(switches: [Arc<Switch>; 2], shape: Shape, how: &Connection) -> (Self, Arc<Faults<NicFault>>) {
        let faults = Faults::new(vec!["nic1".to_owned(), "nic2".to_owned()]).unwrap();
        // Neighbours at one switch need no wire, which would be a loop.
        let wire = match Arc::ptr_eq(&switches[0], &switches[1]) {
            true => Wire::new(&Switch::new(), &Switch::new()),
            false => Wire::new(&switches[0], &switches[1]),
        };
        let a = End::new(faulty_machine(&switches[0], 1, &faults).0, 1, shape);
        let b = End::new(faulty_machine(&switches[1], 2, &faults).0, 2, shape);
        connect((&a.node, &a.qp), (&b.node, &b.qp), how);
        (Self { a, b, wire }, faults)
    }

    /// Two guests with a connected queue pair each, at one switch, that are recorded.
    pub fn recorded(shape: Shape, how: &Connection) -> (Self, [Recording; 2]) {
        let (switch, turns) = (Switch::new(), Arc::default());
        let [(first, of_first), (second, of_second)] =
            [1, 2].map(|number| recorded_machine(&switch, number, &turns, |_| {}));
        let (a, b) = (End::new(first, 1, shape), End::new(second, 2, shape));
        connect((&a.node, &a.qp), (&b.node, &b.qp), how);
        let wire = Wire::new(&Switch::new(), &Switch::new());
        (Self { a, b, wire }, [of_first, of_second])
    }

    /// Two recorded guests as [`Pair::recorded`] makes them, `nic1` and `nic2` in plans of faults.
    pub fn faulty_recorded(shape: Shape, how: &Connection) -> (Self, Arc<Faults<NicFault>>, [Recording; 2]) {
        let faults = Faults::new(vec!["nic1".to_owned(), "nic2".to_owned()]).unwrap();
        let (switch, turns) = (Switch::new(), Arc::default());
        let [(first, of_first, _), (second, of_second, _)] =
            [1, 2].map(|number| faulty_recorded_machine(&switch, number, &turns, &faults));
        let (a, b) = (End::new(first, 1, shape), End::new(second, 2, shape));
        connect((&a.node, &a.qp), (&b.node, &b.qp), how);
        let wire = Wire::new(&Switch::new(), &Switch::new());
        (Self { a, b, wire }, faults, [of_first, of_second])
    }

    /// Two guests with a queue pair each, in reset.
    pub fn unconnected(first: Shape, second: Shape) -> Self {
        Self::assemble(first, second, |_| {})
    }

    fn assemble(first: Shape, second: Shape, configure: impl Fn(&mut NicConfig)) -> Self {
        let switches = [Switch::new(), Switch::new()];
        let wire = Wire::new(&switches[0], &switches[1]);
        let a = End::new(machine_with(&switches[0], 1, &configure), 1, first);
        let b = End::new(machine_with(&switches[1], 2, &configure), 2, second);
        Self { a, b, wire }
    }

    /// A request on `offset` of the responder's region.
    pub fn request(&self, opcode: WqeOpcode, data: Vec<Data>, offset: u64) -> Request {
        Request::remote(opcode, data, self.b.memory.at(offset), self.b.memory.key)
    }

    /// Shuts both down. Panics if an object is left.
    #[track_caller]
    pub fn end(self) {
        self.a.close();
        self.b.close();
    }
}

/// Lets a queue pair receive only, from a queue pair of a peer.
pub fn receives(at: (&Node, &QueuePair), from: (&Node, &QueuePair)) {
    let how = Connection::default().reverse();
    at.1.initialize(at.0, &how).unwrap();
    let peer = (from.0.mac, from.0.gid);
    at.1.make_ready_to_receive(at.0, peer, from.1.number, &how).unwrap();
}

/// Waits for an event of a type about a QP or an SRQ.
#[track_caller]
pub fn hears(node: &Node, event: EventType, number: u32) {
    let eqe = node.hca.wait_event(event);
    assert_eq!((eqe.data[20], &eqe.data[24..]), (0, &number.to_be_bytes()[..]));
}

/// Waits for the error state of a queue pair.
#[track_caller]
pub fn is_in_error(node: &Node, qp: &QueuePair) {
    eventually("the error state", || qp.query(node).unwrap().state() == ERROR);
}

/// Pseudo-random bytes that depend on `seed`; a shorter pattern is the start of a longer one.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.u64(..).to_le_bytes()[..chunk.len()]);
    }
    bytes
}
