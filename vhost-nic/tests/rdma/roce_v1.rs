//! RoCE v1: what a queue pair with a GID of it sends and receives (IBTA annex A16).

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use mlx5_prm::opcode::Opcode as Command;
use mlx5_prm::qp::{AttachToMcgIn, AttachToMcgOut, DetachFromMcgIn, DetachFromMcgOut};
use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::node::{Node, gid};
use mlx5_test_driver::qp::{
    Connection, Data, Q_KEY, QueuePair, Request, Shape, V1_FLOW_LABEL, V1_TRAFFIC_CLASS, address, service, v1_address,
};
use mlx5_test_driver::wait::{PATIENCE, eventually};
use vhost_nic::external_port::{ExternalPort, StreamMedium};
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::Switch;
use vhost_nic::roce::grh::Grh;
use vhost_nic::roce::headers::{Bth, Headers};
use vhost_nic::roce::icrc;
use vhost_nic::roce::opcode::{Opcode, Operation, Position, Suffix, Transport};
use vhost_nic::roce::packet::{Packet, emit_headers};
use vhost_nic::roce::path::{Addresses, Path};
use vhost_nic::roce::psn::Psn;

use crate::nic::machine;
use crate::pair::{Pair, pattern};
use crate::wire::Fate;

/// Bytes of the GRH before a datagram.
const GRH: usize = 40;
const V1: Connection = Connection {
    mtu: 3,
    psn: (0x12_3456, 0x65_4321),
    retry_count: 7,
    rnr_retry: 7,
    min_rnr_nak: 1,
    ack_timeout: 12,
    access: (true, true, true),
    log_depth: 4,
    counters: 0,
    v1: true,
};

/// Sends, writes and reads messages of several lengths, and checks every byte.
fn exchange(pair: &mut Pair, reads: bool) {
    for (seed, length) in [1, 1023, 1024, 1025, 5000, 1 << 20].into_iter().enumerate() {
        let data = pattern(seed as u64, length);
        pair.a.memory.write(0, &data);
        let receive = pair.b.qp.receive(&[pair.b.part(0, length)]);
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, length)));
        pair.b.qp.received(CqeOpcode::ResponderSend, receive, length);
        pair.a.qp.sent(WqeOpcode::Send, send);
        assert!(pair.b.memory.read(0, length) == data, "send of {length}");
        let write = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, length), 1 << 20);
        let write = pair.a.qp.post(&write);
        pair.a.qp.sent(WqeOpcode::RdmaWrite, write);
        assert!(pair.b.memory.read(1 << 20, length) == data, "write of {length}");
        if reads {
            let read = pair.request(WqeOpcode::RdmaRead, pair.a.data(2 << 20, length), 1 << 20);
            let read = pair.a.qp.post(&read);
            pair.a.qp.sent(WqeOpcode::RdmaRead, read);
            assert!(pair.a.memory.read(2 << 20, length) == data, "read of {length}");
        }
    }
}

#[test]
fn connected_services_carry_every_byte() {
    for (service, reads) in [(service::RC, true), (service::UC, false)] {
        let mut pair = Pair::new(Shape::new(service), &V1);
        exchange(&mut pair, reads);
        pair.end();
    }
}

#[test]
fn lost_and_damaged_packets_are_sent_again() {
    let mut pair = Pair::new(Shape::new(service::RC), &V1);
    let mut count = 0;
    pair.wire.judge(move |_| {
        count += 1;
        match count % 50 {
            7 => Fate::Drop,
            // A bit that only the ICRC protects.
            23 => Fate::Corrupt,
            31 => Fate::Duplicate,
            _ => Fate::Pass,
        }
    });
    exchange(&mut pair, true);
    pair.end();
}

#[test]
fn datagrams_arrive_behind_the_route_header() {
    let mut pair = Pair::new(Shape::new(service::UD), &V1);
    for length in [0, 1, 64, 1023, 1024] {
        let data = pattern(length as u64, length);
        pair.a.memory.write(0, &data);
        let room = length + GRH;
        let receive = pair.b.qp.receive(&[pair.b.part(0, room)]);
        let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, length));
        request.to = Some(v1_address(&pair.b.node, pair.b.qp.number, Q_KEY));
        let send = pair.a.qp.post(&request);
        let cqe = pair.b.qp.received(CqeOpcode::ResponderSend, receive, room);
        pair.a.qp.sent(WqeOpcode::Send, send);
        // GRH present, `MLX5_CQE_ROCE_L3_HEADER_TYPE_GRH`, source QP number.
        assert_eq!(cqe.flags_rqpn.get(), 1 << 28 | pair.a.qp.number);
        let arrived = pair.b.memory.read(0, room);
        assert!(arrived[GRH..] == data, "{length}");
        // BTH, DETH, payload with padding, ICRC.
        let bytes = (12 + 8 + length.next_multiple_of(4) + 4) as u16;
        let gids = [gid(1), gid(2)];
        let expected = Grh::new(V1_TRAFFIC_CLASS, V1_FLOW_LABEL, bytes, 64, gids);
        assert_eq!(zerocopy::IntoBytes::as_bytes(&expected), &arrived[..GRH]);
    }
    // A datagram of the other version, to the same queue pair.
    let receive = pair.b.qp.receive(&[pair.b.part(0, GRH)]);
    let mut request = Request::new(WqeOpcode::Send, vec![]);
    request.to = Some(address(&pair.b.node, pair.b.qp.number, Q_KEY));
    let send = pair.a.qp.post(&request);
    let cqe = pair.b.qp.received(CqeOpcode::ResponderSend, receive, GRH);
    pair.a.qp.sent(WqeOpcode::Send, send);
    assert_eq!(cqe.flags_rqpn.get() >> 24, 0x12);
    pair.end();
}

#[test]
fn a_multicast_reaches_the_members_of_its_group() {
    /// The group of 224.1.2.3 for RoCE v1 (`cma_iboe_set_mgid`, `drivers/infiniband/core/cma.c`).
    const GROUP: [u8; 16] = [0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 224, 1, 2, 3];
    let mut pair = Pair::new(Shape::new(service::UD), &V1);
    let mut input = AttachToMcgIn::default();
    input.set_qpn(pair.b.qp.number);
    *input.multicast_gid_mut() = GROUP;
    let commands = &pair.b.node.hca.commands;
    commands
        .call::<_, AttachToMcgOut>(Command::ATTACH_TO_MCG, &input)
        .unwrap();
    let data = pattern(1, 100);
    pair.a.memory.write(0, &data);
    let mut to = v1_address(&pair.b.node, 0xff_ffff, Q_KEY);
    to.rmac = [0x33, 0x33, 224, 1, 2, 3];
    to.rgid = GROUP;
    let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, 100));
    request.to = Some(to);
    let receive = pair.b.qp.receive(&[pair.b.part(0, GRH + 100)]);
    let send = pair.a.qp.post(&request);
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, GRH + 100);
    pair.a.qp.sent(WqeOpcode::Send, send);
    assert!(pair.b.memory.read(GRH as u64, 100) == data);
    assert_eq!(pair.b.memory.read(24, 16), GROUP);
    let mut input = DetachFromMcgIn::default();
    input.set_qpn(pair.b.qp.number);
    *input.multicast_gid_mut() = GROUP;
    commands_of(&pair.b.node, &input);
    let send = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::Send, send);
    pair.b.qp.silent();
    pair.end();
}

fn commands_of(node: &Node, input: &DetachFromMcgIn) {
    let commands = &node.hca.commands;
    commands
        .call::<_, DetachFromMcgOut>(Command::DETACH_FROM_MCG, input)
        .unwrap();
}

/// A guest, a port of its switch, and a peer there that is not a NIC.
struct Bench {
    node: Node,
    qp: QueuePair,
    port: ExternalPort,
    stream: UnixStream,
    _directory: tempfile::TempDir,
}

const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("port");
        let switch = Switch::new();
        let node = Node::open(machine(&switch, 1), 1);
        let medium = StreamMedium::new("port", UnixListener::bind(&path).unwrap()).unwrap();
        let port = ExternalPort::start(&switch, "port", Box::new(medium), 1 << 20).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        eventually("the link", || {
            switch
                .stats()
                .ports
                .iter()
                .any(|port| port.name == "port" && port.link_up)
        });
        let qp = QueuePair::create(&node, Shape::new(service::RC)).unwrap();
        let how = Connection { ack_timeout: 0, ..V1 };
        qp.initialize(&node, &how).unwrap();
        qp.make_ready_to_receive(&node, (PEER_MAC, gid(2)), 0x11, &how).unwrap();
        qp.make_ready_to_send(&node, &how).unwrap();
        Self {
            node,
            qp,
            port,
            stream,
            _directory: directory,
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        frame
    }

    /// A send of one packet by the peer, of either version.
    fn packet(&self, addresses: Addresses, payload: &[u8]) -> Vec<u8> {
        let opcode = Opcode::new(Transport::Rc, Operation::Send, Position::Only, Suffix::None).unwrap();
        let headers = Headers::new(Bth::new(opcode, self.qp.number, Psn::new(V1.psn.1)).with_ack_request(true));
        let path = Path {
            source_mac: PEER_MAC.into(),
            destination_mac: self.node.mac.into(),
            vlan: None,
            addresses,
            udp_source_port: 0xc000,
            traffic_class: 0,
            hop_limit: 1,
            flow_label: 0,
        };
        let (mut head, mut frame) = (Vec::new(), Vec::new());
        emit_headers(&path, &headers, payload.len(), &mut head);
        assert!(icrc::append(&FrameView::new(&head).unwrap(), [payload], &mut frame));
        frame
    }
}

#[test]
fn a_packet_leaves_with_its_route_header_padding_and_icrc() {
    let mut bench = Bench::new();
    bench
        .qp
        .post(&Request::new(WqeOpcode::Send, vec![Data::Inline(b"hello".to_vec())]));
    // Ethernet; GRH; BTH; payload with padding; zlib.crc32 over 8 bytes of ones and the masked packet.
    let expected = "525400 00c502 525400 00c501 8915
         66a54321 0018 1b 40 00000000000000000000ffff0a000001 00000000000000000000ffff0a000002
         04 70 ffff 00 000011 80 123456
         68656c6c6f 000000 d2717fd2";
    let digits: String = expected.split_whitespace().collect();
    let expected: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap())
        .collect();
    assert_eq!(bench.receive(), expected);
}

#[test]
fn packets_of_the_peer_are_checked_executed_and_answered_in_their_version() {
    let mut bench = Bench::new();
    let memory = bench.node.region(4096);
    let receive = bench.qp.receive(&[(memory.at(0), 4096, memory.key)]);
    let v1 = Addresses::Grh {
        source: gid(2),
        destination: gid(1),
    };
    let v2 = Addresses::Ipv4 {
        source: [10, 0, 0, 2],
        destination: [10, 0, 0, 1],
    };
    let good = bench.packet(v1, b"right");
    // In one piece, so that they travel in one burst.
    let mut stream = Vec::new();
    let mut add = |frame: &[u8]| {
        stream.extend((frame.len() as u32).to_be_bytes());
        stream.extend(frame);
    };
    // SGID, DGID, BTH, payload, ICRC.
    for byte in [25, 50, 57, 66, good.len() - 1] {
        let mut bad = good.clone();
        bad[byte] ^= 0x10;
        add(&bad);
    }
    // The connection is of version 1, and its peer has another GID.
    let other = bench.packet(v2, b"wrong");
    add(&other);
    let stranger = bench.packet(
        Addresses::Grh {
            source: gid(3),
            destination: gid(1),
        },
        b"wrong",
    );
    add(&stranger);
    add(&good);
    bench.stream.write_all(&stream).unwrap();
    bench.qp.received(CqeOpcode::ResponderSend, receive, 5);
    assert_eq!(memory.read(0, 6), *b"right\0");
    let response = bench.receive();
    let view = FrameView::new(&response).unwrap();
    let packet = Packet::new_checked(&view).unwrap();
    assert!(icrc::check(&view));
    assert_eq!(
        (
            packet.path.addresses,
            packet.opcode.operation(),
            packet.headers.bth.psn().value()
        ),
        (
            Addresses::Grh {
                source: gid(1),
                destination: gid(2)
            },
            Operation::Acknowledge,
            V1.psn.1
        )
    );
    assert_eq!(bench.port.stats().dropped.bad_icrc, 5);
    bench.qp.silent();
}
