//! The host's network stack as the peer of a port: an interface of the host, and a station of the switch that it talks
//! to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TcpSlice, TransportSlice};
use mlx5_test_driver::wait::PATIENCE;
use vhost_nic::net::{Burst, Frame, Port, Switch, SwitchPort};

use crate::namespace::ip;

pub const HOST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 1];
pub const STATION_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];
const HOST: [u8; 4] = [10, 0, 0, 1];
const STATION: [u8; 4] = [10, 0, 0, 2];

/// Bytes that differ from seed to seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Frames that the host has sent by an interface.
fn sent(interface: &str) -> u64 {
    count(interface, 9)
}

/// Frames that the host has received by an interface.
fn received(interface: &str) -> u64 {
    count(interface, 1)
}

/// A column of an interface's counts.
fn count(interface: &str, column: usize) -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    line.expect("the interface")
        .split_whitespace()
        .nth(column)
        .unwrap()
        .parse()
        .unwrap()
}

/// A receiver that keeps what it receives.
struct Keeper(Sender<Vec<u8>>);

impl Port for Keeper {
    fn receive(&self, frame: Frame<'_>) {
        frame.each(|frame| drop(self.0.send(frame.to_bytes().unwrap().into_owned())));
    }
}

/// A station of a switch.
pub struct Station {
    port: SwitchPort,
    received: Receiver<Vec<u8>>,
    _keeper: Arc<Keeper>,
}

impl Station {
    /// Attaches a station.
    pub fn new(switch: &Arc<Switch>) -> Self {
        let (sender, received) = channel();
        let keeper = Arc::new(Keeper(sender));
        let weak: Weak<Keeper> = Arc::downgrade(&keeper);
        let port = switch.attach("station", weak);
        port.set_enabled(true);
        Self {
            port,
            received,
            _keeper: keeper,
        }
    }

    /// The next frame that it receives.
    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        self.received.recv_timeout(PATIENCE).expect("a frame to the station")
    }

    /// The next frame, if there is one within a time.
    pub fn receive_within(&self, time: Duration) -> Option<Vec<u8>> {
        self.received.recv_timeout(time).ok()
    }

    /// Sends the frame of these bytes.
    pub fn send_bytes(&self, frame: &[u8]) {
        self.port.send(Frame::new(frame));
    }

    /// Sends the frames of these bytes together.
    pub fn send_together(&self, frames: &[Vec<u8>]) {
        let frames: Vec<Frame<'_>> = frames.iter().map(|frame| Frame::new(frame)).collect();
        self.port.send_burst(&Burst::new(&frames));
    }

    /// An IPv4 packet to the host.
    pub fn packet(build: impl FnOnce(PacketBuilderStep<etherparse::IpHeaders>, &mut Vec<u8>)) -> Vec<u8> {
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2(STATION_MAC, HOST_MAC);
        build(link.ipv4(STATION, HOST, 64), &mut frame);
        frame
    }

    /// Sends an IPv4 packet to the host.
    pub fn send(&self, build: impl FnOnce(PacketBuilderStep<etherparse::IpHeaders>, &mut Vec<u8>)) {
        self.send_bytes(&Self::packet(build));
    }
}

/// Gives an interface the address of the host, that of the station as a neighbour, and takes it up.
pub fn configure(interface: &str) {
    // No frames of its own accord: IPv6 would send some.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
    let [a, b, c, d, e, f] = HOST_MAC;
    ip(&format!(
        "link set {interface} address {a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x} up"
    ));
    ip(&format!("address add 10.0.0.1/24 dev {interface}"));
    ip(&format!("neighbour add 10.0.0.2 lladdr 52:54:0:0:c5:2 dev {interface}"));
}

/// The TCP part of a frame of the host, whose checksums are right.
fn tcp(frame: &[u8]) -> TcpSlice<'_> {
    assert_eq!(frame[..12], [STATION_MAC, HOST_MAC].concat());
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        panic!("no TCP: {frame:02x?}");
    };
    let ip = packet.net.unwrap();
    let ip = ip.ipv4_ref().unwrap().header();
    assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
    assert_eq!(
        tcp.calc_checksum_ipv4(ip.source(), ip.destination()),
        Ok(tcp.checksum())
    );
    tcp
}

/// Both ways by UDP and TCP. Returns the frames of the host on the wire, and in its own count.
pub fn exchange(station: &Station, interface: &str) -> (u64, u64) {
    let before = sent(interface);
    let mut frames = 0;
    let mut receive = || {
        frames += 1;
        station.receive()
    };
    let socket = UdpSocket::bind(("10.0.0.1", 1000)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for length in [0, 1, 1000, 1472] {
        let data = pattern(1, length);
        socket.send_to(&data, ("10.0.0.2", 2000)).unwrap();
        let frame = receive();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("no UDP");
        };
        assert!(udp.payload() == data);
        let header = packet.net.unwrap();
        let header = header.ipv4_ref().unwrap().header().to_header();
        let checksum = udp.to_header().calc_checksum_ipv4(&header, &data).unwrap();
        assert_eq!(udp.checksum(), checksum, "{length} bytes");
        let data = pattern(2, length);
        station.send(|ip, frame| ip.udp(2000, 1000).write(frame, &data).unwrap());
        let mut got = vec![0; 2000];
        let (count, from) = socket.recv_from(&mut got).unwrap();
        assert!(got[..count] == data && from == ([10, 0, 0, 2], 2000).into());
    }

    let data = pattern(3, 300_000);
    let client = {
        let data = data.clone();
        thread::spawn(move || {
            let mut stream = TcpStream::connect("10.0.0.2:80").unwrap();
            stream.write_all(&data).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        })
    };
    let (mut got, mut next, mut peer) = (Vec::new(), 0, (0, 0));
    while got.len() < data.len() {
        let frame = receive();
        assert!(frame.len() <= 14 + 1500);
        let tcp = tcp(&frame);
        peer = (tcp.destination_port(), tcp.source_port());
        if tcp.syn() {
            next = tcp.sequence_number() + 1;
            station.send(|ip, frame| {
                let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
                let builder = ip.tcp(peer.0, peer.1, 999, u16::MAX).syn().ack(next);
                builder.options(&options).unwrap().write(frame, &[]).unwrap();
            });
            continue;
        }
        if tcp.payload().is_empty() {
            continue;
        }
        assert_eq!(tcp.sequence_number(), next);
        got.extend_from_slice(tcp.payload());
        next += tcp.payload().len() as u32;
        station.send(|ip, frame| {
            let builder = ip.tcp(peer.0, peer.1, 1000, u16::MAX).ack(next);
            builder.write(frame, &[]).unwrap();
        });
    }
    assert!(got == data);
    station.send(|ip, frame| {
        let builder = ip.tcp(peer.0, peer.1, 1000, u16::MAX).ack(next).psh().fin();
        builder.write(frame, b"thanks").unwrap();
    });
    assert_eq!(client.join().unwrap(), b"thanks");
    (frames, sent(interface) - before)
}

/// Segments of a TCP stream to the host, sent together. Returns the frames on the wire, and in the host's own count.
pub fn stream(station: &Station, interface: &str) -> (u64, u64) {
    let listener = TcpListener::bind(("10.0.0.1", 81)).unwrap();
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    station.send(|ip, frame| {
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
        let builder = ip.tcp(2000, 81, 999, u16::MAX).syn();
        builder.options(&options).unwrap().write(frame, &[]).unwrap();
    });
    // The rest of an earlier connection may be in between.
    let next = loop {
        let frame = station.receive();
        let answer = tcp(&frame);
        if answer.syn() && answer.source_port() == 81 {
            break answer.sequence_number() + 1;
        }
    };
    station.send(|ip, frame| ip.tcp(2000, 81, 1000, u16::MAX).ack(next).write(frame, &[]).unwrap());
    let before = received(interface);
    let data = pattern(4, 20_000);
    let last = data.len().div_ceil(1000) - 1;
    let segments: Vec<_> = data
        .chunks(1000)
        .enumerate()
        .map(|(index, part)| {
            Station::packet(|ip, frame| {
                let builder = ip.tcp(2000, 81, 1000 + 1000 * index as u32, u16::MAX).ack(next);
                let builder = if index == last { builder.fin() } else { builder };
                builder.write(frame, part).unwrap();
            })
        })
        .collect();
    station.send_together(&segments);
    assert!(reader.join().unwrap() == data);
    (segments.len() as u64, received(interface) - before)
}
