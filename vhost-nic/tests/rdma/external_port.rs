//! Ports whose peers are outside the daemon: what leaves, what enters, and peers that misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use mlx5_prm::queue_entry::{CqeOpcode, Syndrome as CqeSyndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::fuzz::exchange;
use mlx5_test_driver::node::{Node, gid};
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, service};
use mlx5_test_driver::wait::{PATIENCE, eventually};
use tempfile::TempDir;
use vhost_nic::external_port::{DatagramMedium, ExternalPort, MAX_LENGTH, StreamMedium};
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::Switch;
use vhost_nic::roce::headers::{Aeth, Bth, Headers};
use vhost_nic::roce::icrc;
use vhost_nic::roce::opcode::{Opcode, Operation, Position, Suffix, Transport};
use vhost_nic::roce::packet::emit_headers;
use vhost_nic::roce::path::{Addresses, Path};
use vhost_nic::roce::psn::Psn;
use vhost_nic::roce::syndrome::Syndrome;

use crate::inspect::Inspect;
use crate::nic::{machine, machine_with};
use crate::pair::pattern;

const QUEUE: usize = 8 << 20;
/// QP number of the peer, which is none of ours.
const PEER_QPN: u32 = 0x11;
const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];

/// A guest, a port of its switch, and the socket of that port.
struct Bench {
    node: Node,
    switch: Arc<Switch>,
    port: ExternalPort,
    path: PathBuf,
    _directory: TempDir,
}

impl Bench {
    fn new(queue: usize) -> Self {
        Self::with(queue, false)
    }

    fn with(queue: usize, spoof_check: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("port");
        let switch = Switch::new();
        let machine = machine_with(&switch, 1, |config| config.spoof_check = spoof_check);
        let node = Node::open(machine, 1);
        let medium = StreamMedium::new("port", UnixListener::bind(&path).unwrap()).unwrap();
        let port = ExternalPort::start(&switch, "port", Box::new(medium), queue).unwrap();
        Self {
            node,
            switch,
            port,
            path,
            _directory: directory,
        }
    }

    /// Connects a peer, and waits until the port's link is up.
    fn connect(&self) -> Peer {
        let before = self.port.stats().connections;
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        eventually("the connection", || self.port.stats().connections == before + 1);
        eventually("the link", || self.link_up());
        Peer(stream)
    }

    fn link_up(&self) -> bool {
        let stats = self.switch.stats();
        stats.ports.iter().any(|port| port.name == "port" && port.link_up)
    }

    /// A queue pair that is connected to one of the peer.
    fn queue_pair(&self, service: u8) -> QueuePair {
        let how = Connection {
            ack_timeout: 0,
            ..Connection::default()
        };
        self.queue_pair_with(service, how)
    }

    fn queue_pair_with(&self, service: u8, how: Connection) -> QueuePair {
        let qp = QueuePair::create(&self.node, Shape::new(service)).unwrap();
        qp.initialize(&self.node, &how).unwrap();
        qp.make_ready_to_receive(&self.node, (PEER_MAC, gid(2)), PEER_QPN, &how)
            .unwrap();
        qp.make_ready_to_send(&self.node, &how).unwrap();
        qp
    }

    /// A packet of the peer, with a correct ICRC.
    fn packet(&self, headers: &Headers, payload: &[u8]) -> Vec<u8> {
        let path = Path {
            source_mac: PEER_MAC.into(),
            destination_mac: self.node.mac.into(),
            vlan: None,
            addresses: Addresses::Ipv4 {
                source: [10, 0, 0, 2],
                destination: [10, 0, 0, 1],
            },
            udp_source_port: 0xc123,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        };
        let (mut head, mut frame) = (Vec::new(), Vec::new());
        emit_headers(&path, headers, payload.len(), &mut head);
        assert!(icrc::append(&FrameView::new(&head).unwrap(), [payload], &mut frame));
        frame
    }

    /// A send of one packet, the `index`th to a queue pair.
    fn send(&self, qp: &QueuePair, index: u32, payload: &[u8]) -> Vec<u8> {
        let opcode = Opcode::new(Transport::Rc, Operation::Send, Position::Only, Suffix::None).unwrap();
        let psn = Psn::new(Connection::default().psn.1 + index);
        let headers = Headers::new(Bth::new(opcode, qp.number, psn).with_ack_request(true));
        self.packet(&headers, payload)
    }
}

/// The other end of a stream.
struct Peer(UnixStream);

impl Peer {
    fn send(&mut self, frame: &[u8]) {
        self.0.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        self.0.write_all(frame).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }
}

/// Hexadecimal digits as bytes.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn a_packet_leaves_with_its_headers_padding_and_icrc() {
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::RC);
    qp.post(&Request::new(WqeOpcode::Send, vec![Data::Inline(b"hello".to_vec())]));
    // The ICRC is that of zlib.crc32 over 8 bytes of ones and the masked packet.
    let expected = hex("525400 00c502 525400 00c501 0800
         45000034 00004000 40 11 26b7 0a000001 0a000002
         c123 12b7 0020 0000
         04 70 ffff 00 000011 80 123456
         68656c6c6f 000000 ee481ca3");
    assert_eq!(peer.receive(), expected);
}

#[test]
fn a_long_message_leaves_in_packets_of_the_path_mtu() {
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::UC);
    let memory = bench.node.region(1 << 20);
    let data = pattern(7, (1 << 20) - 1);
    memory.write(0, &data);
    let part = Data::Memory((memory.at(0), data.len() as u32, memory.key));
    let counter = qp.post(&Request::new(WqeOpcode::Send, vec![part]));
    qp.sent(WqeOpcode::Send, counter);
    let mut got = Vec::new();
    for index in 0..1024 {
        let frame = peer.receive();
        let view = FrameView::new(&frame).unwrap();
        assert!(icrc::check(&view), "packet {index}");
        // SEND first, middle and last of UC.
        let opcode = [0x20, 0x21, 0x22][usize::from(index > 0) + usize::from(index == 1023)];
        let pad = usize::from(index == 1023);
        assert_eq!((frame[42], frame[43] >> 4 & 3), (opcode, pad as u8), "packet {index}");
        assert_eq!(frame.len(), 14 + 20 + 8 + 12 + 1024 + 4);
        got.extend_from_slice(&frame[54..54 + 1024 - pad]);
    }
    assert!(got == data);
}

#[test]
fn requests_of_the_peer_are_executed_and_acknowledged() {
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::RC);
    let memory = bench.node.region(4096);
    let receive = qp.receive(&[(memory.at(0), 4096, memory.key)]);
    peer.send(&bench.send(&qp, 0, b"hello"));
    qp.received(CqeOpcode::ResponderSend, receive, 5);
    assert_eq!(memory.read(0, 6), *b"hello\0");
    let response = peer.receive();
    // RC ACKNOWLEDGE, the PSN of the request, an ACK without credits, MSN 1.
    assert_eq!(response[42], 0x11);
    assert_eq!(response[51..58], hex("654321 1f 000001"));
    assert!(icrc::check(&FrameView::new(&response).unwrap()));
}

#[test]
fn a_wrong_icrc_is_dropped_counted_and_never_answered() {
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::RC);
    let memory = bench.node.region(4096);
    let receive = qp.receive(&[(memory.at(0), 4096, memory.key)]);
    let good = bench.send(&qp, 0, b"right");
    for bit in [8 * 54, 8 * good.len() - 1, 8 * 45] {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        peer.send(&bad);
    }
    peer.send(&good);
    qp.received(CqeOpcode::ResponderSend, receive, 5);
    assert_eq!(memory.read(0, 5), *b"right");
    // The only answer is that to the last.
    assert_eq!(peer.receive()[51..58], hex("654321 1f 000001"));
    assert_eq!(bench.port.stats().dropped.bad_icrc, 3);
    qp.silent();
    drop(bench.port);
    assert_eq!(peer.0.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn frames_of_no_length_are_skipped_and_an_endless_one_ends_the_connection() {
    let bench = Bench::new(QUEUE);
    let mut qp = bench.queue_pair(service::RC);
    let memory = bench.node.region(4096);
    let mut peer = bench.connect();
    let receive = qp.receive(&[(memory.at(0), 4096, memory.key)]);
    peer.send(&[]);
    peer.send(&[0; 13]);
    peer.send(&vec![2; MAX_LENGTH]);
    peer.send(&bench.send(&qp, 0, b"first"));
    qp.received(CqeOpcode::ResponderSend, receive, 5);
    assert_eq!(bench.port.stats().dropped.malformed, 1);
    let of_switch = &bench.switch.stats().ports[1].dropped;
    assert_eq!((of_switch.too_short, of_switch.too_long), (1, 1));
    for (round, length) in [MAX_LENGTH as u32 + 1, u32::MAX].into_iter().enumerate() {
        peer.0.write_all(&length.to_be_bytes()).unwrap();
        let mut rest = Vec::new();
        // Whatever was on the way, then the end.
        match peer.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        eventually("the end of the link", || !bench.link_up());
        assert_eq!(bench.port.stats().dropped.malformed, 2 + round as u64);
        peer = bench.connect();
    }
}

#[test]
fn a_peer_that_comes_back_finds_the_link_up_again() {
    let bench = Bench::new(QUEUE);
    let mut qp = bench.queue_pair(service::UC);
    let send = |qp: &mut QueuePair| {
        let counter = qp.post(&Request::new(WqeOpcode::Send, vec![Data::Inline(vec![1; 4])]));
        qp.sent(WqeOpcode::Send, counter);
    };
    assert!(!bench.link_up());
    send(&mut qp);
    for round in 1..=3 {
        let mut peer = bench.connect();
        send(&mut qp);
        assert_eq!(peer.receive()[42], 0x24);
        // Half a frame is left behind.
        peer.0.write_all(&[0, 0, 5, 0, 1, 2, 3]).unwrap();
        peer.0.shutdown(Shutdown::Both).unwrap();
        eventually("the end of the link", || !bench.link_up());
        let stats = bench.port.stats();
        assert_eq!((stats.connected, stats.connections), (false, round));
        assert_eq!(stats.dropped.malformed, 0);
    }
}

#[test]
fn a_peer_that_does_not_read_costs_its_frames_and_nobody_waits() {
    const PACKETS: u64 = 4 * 1024;
    let bench = Bench::new(64 << 10);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::UC);
    let memory = bench.node.region(1 << 20);
    for _ in 0..4 {
        let part = Data::Memory((memory.at(0), 1 << 20, memory.key));
        let counter = qp.post(&Request::new(WqeOpcode::Send, vec![part]));
        qp.sent(WqeOpcode::Send, counter);
    }
    let dropped = bench.port.stats().dropped.queue_full;
    assert!(dropped > PACKETS / 2, "{dropped}");
    assert!(bench.port.stats().queued_bytes <= 64 << 10);
    for _ in 0..PACKETS - dropped {
        peer.receive();
    }
    let stats = bench.port.stats();
    assert_eq!((stats.queued_frames, stats.dropped.queue_full), (0, dropped));
}

#[test]
fn a_peer_cannot_send_from_the_address_of_a_checked_nic() {
    let bench = Bench::with(QUEUE, true);
    let mut peer = bench.connect();
    let mut frame = vec![0xff; 60];
    frame[6..12].copy_from_slice(&bench.node.mac);
    peer.send(&frame);
    eventually("the frame", || bench.switch.stats().ports[1].dropped.spoofed == 1);
    assert_eq!(bench.switch.stats().ports[1].sent.frames, 0);
}

#[test]
fn two_daemons_are_joined_by_datagrams() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| directory.path().join(name));
    let sides: Vec<(Node, ExternalPort)> = [0, 1]
        .map(|side: usize| {
            let switch = Switch::new();
            let node = Node::open(machine(&switch, side as u8 + 1), side as u8 + 1);
            let socket = UnixDatagram::bind(&paths[side]).unwrap();
            let medium = DatagramMedium::new(socket, paths[1 - side].clone()).unwrap();
            (
                node,
                ExternalPort::start(&switch, "wire", Box::new(medium), QUEUE).unwrap(),
            )
        })
        .into();
    exchange(&sides[0].0, &sides[1].0);
    exchange(&sides[1].0, &sides[0].0);
    for (node, port) in sides {
        let stats = port.stats();
        assert_eq!(stats.dropped.queue_full + stats.dropped.bad_icrc, 0);
        assert!(stats.connected);
        assert_eq!(node.hca.machine.nic().snapshot().guest_errors, Default::default());
        node.close();
    }
}

#[test]
fn an_unexpected_response_of_the_peer_changes_nothing() {
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::RC);
    let opcode = Opcode::new(Transport::Rc, Operation::Acknowledge, Position::Only, Suffix::None).unwrap();
    let mut headers = Headers::new(Bth::new(opcode, qp.number, Psn::new(0x12_3456)));
    headers.aeth = Some(Aeth::new(Syndrome::ACK.byte(), 1));
    peer.send(&bench.packet(&headers, &[]));
    // Its own message is not acknowledged by what came before.
    let memory = bench.node.region(64);
    let receive = qp.receive(&[(memory.at(0), 64, memory.key)]);
    peer.send(&bench.send(&qp, 0, b"then"));
    qp.received(CqeOpcode::ResponderSend, receive, 4);
    qp.post(&Request::new(WqeOpcode::Send, vec![Data::Inline(vec![1; 4])]));
    // The acknowledgement and the send, from two threads.
    let mut opcodes = [peer.receive()[42], peer.receive()[42]];
    opcodes.sort_unstable();
    assert_eq!(opcodes, [0x04, 0x11]);
    qp.silent();
}

#[test]
fn a_distant_peer_gets_no_more_than_it_has_acknowledged_and_a_window() {
    /// Packets of 1024 bytes in the window.
    const WINDOW: u32 = 128;
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let mut qp = bench.queue_pair(service::RC);
    let memory = bench.node.region(4 << 20);
    let part = Data::Memory((memory.at(0), 4 << 20, memory.key));
    let counter = qp.post(&Request::new(WqeOpcode::Send, vec![part]));
    let first = Connection::default().psn.0;
    let (mut received, mut allowed) = (0, WINDOW);
    while received < 4096 {
        while received < allowed.min(4096) {
            assert_eq!(peer.receive()[51..54], (first + received).to_be_bytes()[1..]);
            received += 1;
        }
        peer.0.set_nonblocking(true).unwrap();
        assert_eq!(peer.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        peer.0.set_nonblocking(false).unwrap();
        let opcode = Opcode::new(Transport::Rc, Operation::Acknowledge, Position::Only, Suffix::None).unwrap();
        // All but the last: a peer that has acknowledged everything before the NIC looks again is no distant one.
        let acknowledged = if received == 4096 { received } else { received - 1 };
        let mut headers = Headers::new(Bth::new(opcode, qp.number, Psn::new(first + acknowledged - 1)));
        headers.aeth = Some(Aeth::new(Syndrome::ACK.byte(), u32::from(received == 4096)));
        peer.send(&bench.packet(&headers, &[]));
        allowed = acknowledged + WINDOW;
    }
    qp.sent(WqeOpcode::Send, counter);
}

#[test]
fn packets_of_a_message_that_is_not_sent_as_a_whole_are_repeated_and_given_up() {
    const WINDOW: u32 = 128;
    const RETRIES: u8 = 2;
    let bench = Bench::new(QUEUE);
    let mut peer = bench.connect();
    let how = Connection {
        retry_count: RETRIES,
        ..Connection::default()
    };
    let mut qp = bench.queue_pair_with(service::RC, how);
    let memory = bench.node.region(1 << 20);
    let part = Data::Memory((memory.at(0), 1 << 20, memory.key));
    let counter = qp.post(&Request::new(WqeOpcode::Send, vec![part]));
    for _ in 0..=RETRIES {
        for packet in 0..WINDOW {
            assert_eq!(peer.receive()[51..54], (how.psn.0 + packet).to_be_bytes()[1..]);
        }
    }
    assert_eq!(qp.send_error(counter), CqeSyndrome::TransportRetryExceeded as u8);
}
