//! Payloads that are under way while the permission to read them ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use mlx5_prm::opcode::Opcode;
use mlx5_prm::qp::{DestroyQpIn, DestroyQpOut, Qp2rstIn, Qp2rstOut};
use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::domain::alloc_xrcd;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::mkey::{create_mkey, destroy_mkey};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::wait::eventually;
use parking_lot::Mutex;
use vhost_nic::net::{Burst, Frame, Port, Switch, SwitchPort};

use crate::inspect::Inspect;
use crate::nic::machine;

/// Bytes of a message.
const LENGTH: usize = 4096;

type Act = Box<dyn FnOnce() + Send>;

/// A cable between two switches that passes packets by reference, and acts before the first with a payload.
struct Cable {
    port: SwitchPort,
    other: Mutex<Weak<Cable>>,
    act: Arc<Mutex<Option<Act>>>,
}

impl Cable {
    fn new(switches: &[Arc<Switch>; 2]) -> ([Arc<Self>; 2], Arc<Mutex<Option<Act>>>) {
        let act = Arc::<Mutex<Option<Act>>>::default();
        let ends = switches.each_ref().map(|switch| {
            Arc::new_cyclic(|own: &Weak<Self>| Self {
                port: switch.attach("cable", own.clone()),
                other: Mutex::default(),
                act: act.clone(),
            })
        });
        *ends[0].other.lock() = Arc::downgrade(&ends[1]);
        *ends[1].other.lock() = Arc::downgrade(&ends[0]);
        (ends, act)
    }
}

impl Port for Cable {
    fn receive(&self, frame: Frame<'_>) {
        self.receive_burst(&Burst::new(&[frame]));
    }

    fn receive_burst(&self, burst: &Burst<'_>) {
        let carries = |frame: &Frame<'_>| matches!(frame, Frame::SuperPacket(packet) if !packet.payload.is_empty());
        if burst.frames().iter().any(carries) {
            let act = self.act.lock().take();
            act.into_iter().for_each(|act| act());
        }
        let other = self.other.lock().upgrade();
        other.unwrap().port.send_burst(burst);
    }
}

/// A reader and a victim, connected by a cable.
struct Guests {
    reader: Node,
    victim: Node,
    qps: [QueuePair; 2],
    target: Region,
    secret: Arc<Region>,
    act: Arc<Mutex<Option<Act>>>,
    /// Set when the act is over.
    acted: Arc<AtomicBool>,
    _cable: [Arc<Cable>; 2],
}

impl Guests {
    fn new() -> Self {
        let switches = [Switch::new(), Switch::new()];
        let (cable, act) = Cable::new(&switches);
        let reader = Node::open(machine(&switches[0], 1), 1);
        let victim = Node::open(machine(&switches[1], 2), 2);
        let qps = [&reader, &victim].map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
        let how = Connection {
            retry_count: 1,
            ack_timeout: 10,
            ..Connection::default()
        };
        connect((&reader, &qps[0]), (&victim, &qps[1]), &how);
        let (target, secret) = (reader.region(LENGTH as u64), Arc::new(victim.region(LENGTH as u64)));
        secret.write(0, &[b'p'; LENGTH]);
        Self {
            reader,
            victim,
            qps,
            target,
            secret,
            act,
            acted: Arc::default(),
            _cable: cable,
        }
    }

    /// Calls `revoke` on the victim when the first payload is between the guests; then there is a secret in its memory.
    fn when_under_way(&self, revoke: impl FnOnce(&Hca, &Region) + Send + 'static) {
        let (hca, secret, acted) = (self.victim.hca.clone(), self.secret.clone(), self.acted.clone());
        *self.act.lock() = Some(Box::new(move || {
            revoke(&hca, &secret);
            secret.write(0, &[b'S'; LENGTH]);
            acted.store(true, Ordering::Release);
        }));
    }

    fn has_acted(&self) -> bool {
        self.acted.load(Ordering::Acquire)
    }

    /// A read of the secret by the reader.
    fn read(&mut self) -> u16 {
        let into = vec![Data::Memory((self.target.at(0), LENGTH as u32, self.target.key))];
        let request = Request::remote(WqeOpcode::RdmaRead, into, self.secret.at(0), self.secret.key);
        self.qps[0].post(&request)
    }

    /// A write by the victim into the reader's memory, with this lkey.
    fn write(&mut self, address: u64, lkey: u32) -> u16 {
        let from = vec![Data::Memory((address, LENGTH as u32, lkey))];
        let request = Request::remote(WqeOpcode::RdmaWrite, from, self.target.at(0), self.target.key);
        self.qps[1].post(&request)
    }

    #[track_caller]
    fn nothing_leaked(&self) {
        assert_eq!(self.target.read(0, LENGTH), [0; LENGTH]);
        assert!(self.has_acted());
    }
}

#[test]
fn a_read_is_not_answered_from_memory_whose_key_was_destroyed() {
    let mut guests = Guests::new();
    guests.when_under_way(|hca, secret| secret.destroy(hca).unwrap());
    let counter = guests.read();
    assert_eq!(guests.qps[0].send_error(counter), Syndrome::RemoteAccess as u8);
    guests.nothing_leaked();
}

#[test]
fn a_write_does_not_read_memory_whose_key_was_destroyed() {
    let mut guests = Guests::new();
    guests.when_under_way(|hca, secret| secret.destroy(hca).unwrap());
    let (address, key) = (guests.secret.at(0), guests.secret.key);
    let counter = guests.write(address, key);
    assert_eq!(guests.qps[1].send_error(counter), Syndrome::LocalProtection as u8);
    guests.nothing_leaked();
}

#[test]
fn a_queue_pair_that_was_reset_sends_nothing_any_more() {
    let mut guests = Guests::new();
    // The key of a kernel, which is for all memory and stays.
    let key = create_mkey(&guests.victim.hca, guests.victim.pd).unwrap();
    let number = guests.qps[1].number;
    guests.when_under_way(move |hca, _| {
        let mut input = Qp2rstIn::default();
        input.set_qpn(number);
        hca.commands.call::<_, Qp2rstOut>(Opcode::QP_2RST, &input).unwrap();
    });
    let address = guests.secret.pages()[0];
    guests.write(address, key);
    eventually("the act beside the payload", || guests.has_acted());
    // Whatever the requester does comes before the destruction of its queue pair returns.
    guests.qps[1].destroy(&guests.victim).unwrap();
    guests.nothing_leaked();
    destroy_mkey(&guests.victim.hca, key).unwrap();
}

#[test]
fn a_queue_pair_that_is_destroyed_while_it_sends_reads_no_wqe_again() {
    let mut guests = Guests::new();
    let number = guests.qps[1].number;
    guests.when_under_way(move |hca, secret| {
        let mut input = DestroyQpIn::default();
        input.set_qpn(number);
        hca.commands
            .call::<_, DestroyQpOut>(Opcode::DESTROY_QP, &input)
            .unwrap();
        secret.destroy(hca).unwrap();
    });
    let (address, key) = (guests.secret.at(0), guests.secret.key);
    guests.write(address, key);
    eventually("the act beside the payload", || guests.has_acted());
    let machine = guests.victim.hca.machine.clone();
    // Waits for the requester's thread.
    machine.device().reset();
    assert_eq!(machine.nic().snapshot().guest_errors, BTreeMap::new());
    guests.nothing_leaked();
}

#[test]
fn the_revocation_of_another_key_loses_nothing() {
    let mut guests = Guests::new();
    let pd = guests.victim.pd;
    guests.when_under_way(move |hca, _| {
        let other = create_mkey(hca, pd).unwrap();
        destroy_mkey(hca, other).unwrap();
    });
    let counter = guests.read();
    guests.qps[0].sent(WqeOpcode::RdmaRead, counter);
    // The memory is the key's, and may change until it is read.
    assert_eq!(guests.target.read(0, LENGTH), [b'S'; LENGTH]);
    let counts = guests.reader.hca.machine.device().objects();
    assert_eq!(counts.get("mkey"), Some(&1));
}

#[test]
fn a_packet_in_flight_over_a_reset_does_not_meet_the_next_connection() {
    let switches = [Switch::new(), Switch::new()];
    let (_cable, act) = Cable::new(&switches);
    let peer = Node::open(machine(&switches[0], 1), 1);
    let node = Arc::new(Node::open(machine(&switches[1], 2), 2));
    // Packets of XRC are executed one by one, with a response between them.
    let mut initiator = QueuePair::create(&peer, Shape::new(service::XRC)).unwrap();
    let shape = Shape {
        sends: false,
        xrcd: alloc_xrcd(&node.hca).unwrap(),
        ..Shape::new(service::XRC)
    };
    let target = Arc::new(QueuePair::create(&node, shape).unwrap());
    let how = Connection {
        retry_count: 1,
        ack_timeout: 10,
        ..Connection::default()
    };
    connect((&peer, &initiator), (&node, &target), &how);
    let (into, memory) = (peer.region(64), node.region(64));
    // The next connection expects the PSN of the packet behind the read, and allows no atomics.
    let next = Connection {
        psn: (how.psn.1, how.psn.0 + 1),
        access: (true, true, false),
        ..how
    };
    let (address, number) = ((peer.mac, peer.gid), initiator.number);
    let (of_node, of_target) = (node.clone(), target.clone());
    *act.lock() = Some(Box::new(move || {
        let (node, target) = (of_node, of_target);
        let mut input = Qp2rstIn::default();
        input.set_qpn(target.number);
        node.hca.commands.call::<_, Qp2rstOut>(Opcode::QP_2RST, &input).unwrap();
        target.initialize(&node, &next).unwrap();
        target.make_ready_to_receive(&node, address, number, &next).unwrap();
        // The state that it had before.
        target.make_ready_to_send(&node, &next).unwrap();
    }));
    // Requests without a payload: the first that passes the cable is that of the response.
    let mut request = |opcode| {
        let data = vec![Data::Memory((into.at(0), 8, into.key))];
        let mut request = Request::remote(opcode, data, memory.at(0), memory.key);
        request.xrc_srqn = Some(0);
        request.operands = (opcode == WqeOpcode::AtomicFetchAdd).then_some((1, 0));
        initiator.put(&request)
    };
    let [read, add] = [WqeOpcode::RdmaRead, WqeOpcode::AtomicFetchAdd].map(&mut request);
    initiator.ring();
    // Its response was of the connection that is gone.
    assert_eq!(initiator.send_error(read), Syndrome::TransportRetryExceeded as u8);
    assert_eq!(initiator.send_error(add), Syndrome::WrFlush as u8);
    assert!(act.lock().is_none());
    assert_eq!(memory.read(0, 8), [0; 8]);
}
