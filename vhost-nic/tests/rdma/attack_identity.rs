//! A guest that sends in the name of another, into a connection of others.

use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::{SetRoceAddressIn, SetRoceAddressOut};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::node::{GID_INDEX, Node, V1_GID_INDEX, gid};
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::wait::eventually;
use vhost_nic::net::Switch;
use vhost_nic::roce::headers::{Bth, Headers, Reth};
use vhost_nic::roce::opcode;
use vhost_nic::roce::psn::Psn;

use crate::inspect::Inspect;
use crate::nic::machine_with;
use crate::raw_peer::RawPeer;

/// Guests a and b with a connection, and c, which has the IP address of a.
struct Guests {
    c: Node,
    honest: QueuePair,
    evil: QueuePair,
    memory: Region,
    _others: [Node; 2],
    _peer: QueuePair,
}

impl Guests {
    /// With `spoofed`, c has the MAC address of a as well.
    fn new(spoof_check: bool, spoofed: bool) -> Self {
        let switch = Switch::new();
        let node = |number, ip| {
            let machine = machine_with(&switch, number, |config| config.spoof_check = spoof_check);
            Node::open(machine, ip)
        };
        let (a, b, c) = (node(1, 1), node(2, 2), node(3, 1));
        if spoofed {
            set_address(&c, a.mac, 1, false);
        }
        // The unreliable connection needs no sequence number.
        let qp = |node: &Node| QueuePair::create(node, Shape::new(service::UC)).unwrap();
        let (honest, peer, evil) = (qp(&a), qp(&b), qp(&c));
        let how = Connection::default();
        connect((&a, &honest), (&b, &peer), &how);
        evil.connect(&c, &b, peer.number, &how).unwrap();
        let memory = b.region(4096);
        Self {
            c,
            honest,
            evil,
            memory,
            _others: [a, b],
            _peer: peer,
        }
    }

    /// A write into the memory of b.
    fn write(&self, byte: u8) -> Request {
        let data = vec![Data::Inline(vec![byte; 8])];
        Request::remote(WqeOpcode::RdmaWrite, data, self.memory.at(0), self.memory.key)
    }

    /// Writes as c; returns what is in the memory of b then.
    fn inject(&mut self) -> Vec<u8> {
        let request = self.write(b'E');
        let counter = self.evil.post(&request);
        self.evil.sent(WqeOpcode::RdmaWrite, counter);
        self.memory.read(0, 8)
    }

    fn write_honestly(&mut self) {
        let request = self.write(b'A');
        let counter = self.honest.post(&request);
        self.honest.sent(WqeOpcode::RdmaWrite, counter);
        eventually("the write of a", || self.memory.read(0, 8) == [b'A'; 8]);
    }

    fn spoofed(&self) -> u64 {
        spoofed(&self.c)
    }
}

/// Number of frames of a guest that were dropped as spoofed.
fn spoofed(node: &Node) -> u64 {
    let wire = node.hca.machine.nic().snapshot().wire;
    wire.unwrap().dropped.spoofed
}

/// Gives a guest the IP address 10.0.0.`number` with this MAC address, for a version of RoCE.
fn set_address(node: &Node, mac: [u8; 6], number: u8, v1: bool) {
    let [a, b, c, d, e, f] = mac;
    let mut input = SetRoceAddressIn::default();
    input.set_roce_address_index(if v1 { V1_GID_INDEX } else { GID_INDEX }.into());
    let entry = input.roce_address_mut();
    *entry.source_l3_address_mut() = gid(number);
    entry.set_source_mac_47_32(u16::from_be_bytes([a, b]));
    entry.set_source_mac_31_0(u32::from_be_bytes([c, d, e, f]));
    entry.set_roce_version(if v1 { 0 } else { 2 });
    let commands = &node.hca.commands;
    commands
        .call::<_, SetRoceAddressOut>(Opcode::SET_ROCE_ADDRESS, &input)
        .unwrap();
}

#[test]
fn without_a_check_a_guest_can_be_any_station() {
    for spoofed in [false, true] {
        let mut guests = Guests::new(false, spoofed);
        assert_eq!((guests.inject(), guests.spoofed()), (vec![b'E'; 8], 0));
    }
}

#[test]
fn the_mac_address_of_another_is_not_forwarded() {
    let mut guests = Guests::new(true, true);
    assert_eq!((guests.inject(), guests.spoofed()), (vec![0; 8], 1));
    guests.write_honestly();
}

#[test]
fn a_connection_takes_packets_from_the_mac_address_of_its_peer() {
    let mut guests = Guests::new(true, false);
    assert_eq!((guests.inject(), guests.spoofed()), (vec![0; 8], 0));
    guests.write_honestly();
}

/// An unchecked guest 2, and a checked guest 3.
fn checked_sender() -> (Node, Node) {
    let switch = Switch::new();
    let node = |number, spoof_check| {
        let machine = machine_with(&switch, number, |config| config.spoof_check = spoof_check);
        Node::open(machine, number)
    };
    (node(2, false), node(3, true))
}

#[test]
fn roce_leaves_from_the_gids_of_the_address_table() {
    for v1 in [false, true] {
        let (b, c) = checked_sender();
        let [mut sender, receiver] = [&c, &b].map(|node| QueuePair::create(node, Shape::new(service::UC)).unwrap());
        let how = Connection {
            v1,
            ..Connection::default()
        };
        connect((&c, &sender), (&b, &receiver), &how);
        let memory = b.region(4096);
        let mut write = |byte: u8| {
            let data = vec![Data::Inline(vec![byte; 8])];
            let counter = sender.post(&Request::remote(WqeOpcode::RdmaWrite, data, memory.at(0), memory.key));
            sender.sent(WqeOpcode::RdmaWrite, counter);
            (memory.read(0, 8), spoofed(&c))
        };
        assert_eq!(write(b'A'), (vec![b'A'; 8], 0));
        // The path of the queue pair is from before.
        set_address(&c, c.mac, 9, v1);
        assert_eq!(write(b'E'), (vec![b'A'; 8], 1), "v1: {v1}");
        set_address(&c, c.mac, 3, v1);
        assert_eq!(write(b'B'), (vec![b'B'; 8], 1));
    }
}

#[test]
fn raw_frames_of_roce_leave_from_the_gids_of_the_address_table() {
    /// UC RDMA WRITE Only.
    const WRITE: u8 = 0x2a;
    for v1 in [false, true] {
        let (b, c) = checked_sender();
        let mut netdev = Netdev::open(&c.hca, &Options::default());
        let how = Connection {
            v1,
            ..Connection::default()
        };
        let memory = b.region(4096);
        // Builds packets as guest c can.
        let mut forger = RawPeer::new(&Switch::new(), 1);
        forger.mac = c.mac;
        let receivers = [1, 3].map(|number| {
            let qp = QueuePair::create(&b, Shape::new(service::UC)).unwrap();
            qp.initialize(&b, &how).unwrap();
            qp.make_ready_to_receive(&b, (c.mac, gid(number)), 0x77, &how).unwrap();
            qp
        });
        let mut packet = |number: u8, receiver: &QueuePair, byte: u8| {
            forger.gid = gid(number);
            let bth = Bth::new(
                opcode::Opcode::from_byte(WRITE).unwrap(),
                receiver.number,
                Psn::new(how.psn.1),
            );
            let mut headers = Headers::new(bth);
            headers.reth = Some(Reth::new(memory.at(0), memory.key, 8));
            match v1 {
                true => forger.v1_packet(&b, &headers, &[byte; 8]),
                false => forger.packet(&b, &headers, &[byte; 8]),
            }
        };
        let [of_a, of_c] = &receivers;
        let own = packet(3, of_c, b'C');
        netdev.send(&own);
        assert_eq!((memory.read(0, 8), spoofed(&c)), (vec![b'C'; 8], 0), "v1: {v1}");
        netdev.send(&packet(1, of_a, b'E'));
        assert_eq!((memory.read(0, 8), spoofed(&c)), (vec![b'C'; 8], 1), "v1: {v1}");
        // Its GID, but not in this VLAN.
        let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        netdev.send(&tagged(&own));
        assert_eq!(spoofed(&c), 2);
        // Too short for a packet of RoCE.
        if !v1 {
            netdev.send(&packet(1, of_a, b'E')[..14 + 20 + 8 + 11]);
            assert_eq!(spoofed(&c), 2);
        }
        // The check of other frames is of the MAC address.
        let mut other = own.clone();
        other[12..14].copy_from_slice(&[0x88, 0xb5]);
        netdev.send(&tagged(&other));
        assert_eq!(spoofed(&c), 2);
    }
}

/// The numbers that a peer must know to send into a connection and to write to memory.
#[test]
fn queue_pairs_and_keys_have_numbers_that_a_peer_cannot_know() {
    let numbers = |seed| {
        let switch = Switch::new();
        let machine = machine_with(&switch, 1, |config| config.random_numbers = seed);
        let node = Node::open(machine, 1);
        let qp = QueuePair::create(&node, Shape::new(service::RC)).unwrap();
        (qp.number, node.region(4096).key >> 8)
    };
    let lowest = numbers(None);
    assert_eq!(lowest.0, 0x40);
    assert_eq!(numbers(None), lowest);
    assert_eq!(numbers(Some(7)), numbers(Some(7)));
    let (first, second) = (numbers(Some(7)), numbers(Some(8)));
    assert!(first.0 != second.0 && first.1 != second.1, "{first:?}, {second:?}");
    assert!(first.0 != lowest.0 && first.1 != lowest.1, "{first:?}");
}
