//! Ports whose peer is the host, through a TAP device. Each test runs again in a network namespace of its own.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TcpSlice, TransportSlice};
use mlx5_test_driver::wait::{PATIENCE, eventually};
use vhost_nic::external_port::{ExternalPort, TapError, TapMedium, TapPlan};
use vhost_nic::net::{Frame, Port, Switch, SwitchPort};

use crate::namespace::{in_namespace, ip};
use crate::pair::pattern;

const HOST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 1];
const STATION_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];
const HOST: [u8; 4] = [10, 0, 0, 1];
const STATION: [u8; 4] = [10, 0, 0, 2];

/// Frames that the host has sent by an interface.
fn sent(interface: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    line.expect("the interface")
        .split_whitespace()
        .nth(9)
        .unwrap()
        .parse()
        .unwrap()
}

/// A station of the switch that keeps what it receives.
struct Station(Sender<Vec<u8>>);

impl Port for Station {
    fn receive(&self, frame: Frame<'_>) {
        frame.each(|frame| drop(self.0.send(frame.to_bytes().unwrap().into_owned())));
    }
}

/// A switch with the host and a station.
struct Bench {
    switch: Arc<Switch>,
    host: ExternalPort,
    station: SwitchPort,
    received: Receiver<Vec<u8>>,
    _port: Arc<Station>,
}

impl Bench {
    fn new(plan: &TapPlan) -> Self {
        let switch = Switch::new();
        let medium = TapMedium::open(plan).unwrap();
        let host = ExternalPort::start(&switch, "host", Box::new(medium), 8 << 20).unwrap();
        let (sender, received) = channel();
        let port = Arc::new(Station(sender));
        let weak: Weak<Station> = Arc::downgrade(&port);
        let station = switch.attach("station", weak);
        station.set_enabled(true);
        // No frames of its own accord: IPv6 would send some.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", plan.name), "1").unwrap();
        let [a, b, c, d, e, f] = HOST_MAC;
        ip(&format!(
            "link set {} address {a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x} up",
            plan.name
        ));
        ip(&format!("address add 10.0.0.1/24 dev {}", plan.name));
        ip(&format!(
            "neighbour add 10.0.0.2 lladdr 52:54:0:0:c5:2 dev {}",
            plan.name
        ));
        Self {
            switch,
            host,
            station,
            received,
            _port: port,
        }
    }

    fn receive(&self) -> Vec<u8> {
        self.received.recv_timeout(PATIENCE).expect("a frame of the host")
    }

    fn send(&self, build: impl FnOnce(PacketBuilderStep<etherparse::IpHeaders>, &mut Vec<u8>)) {
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2(STATION_MAC, HOST_MAC);
        build(link.ipv4(STATION, HOST, 64), &mut frame);
        self.station.send(Frame::new(&frame));
    }
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
fn exchange(bench: &Bench, interface: &str) -> (u64, u64) {
    let before = sent(interface);
    let mut frames = 0;
    let mut receive = || {
        frames += 1;
        bench.receive()
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
        bench.send(|ip, frame| ip.udp(2000, 1000).write(frame, &data).unwrap());
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
            bench.send(|ip, frame| {
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
        bench.send(|ip, frame| {
            let builder = ip.tcp(peer.0, peer.1, 1000, u16::MAX).ack(next);
            builder.write(frame, &[]).unwrap();
        });
    }
    assert!(got == data);
    bench.send(|ip, frame| {
        let builder = ip.tcp(peer.0, peer.1, 1000, u16::MAX).ack(next).psh().fin();
        builder.write(frame, b"thanks").unwrap();
    });
    assert_eq!(client.join().unwrap(), b"thanks");
    (frames, sent(interface) - before)
}

#[test]
fn the_host_leaves_checksums_and_segmentation_to_the_port() {
    if !in_namespace("tap_device::the_host_leaves_checksums_and_segmentation_to_the_port") {
        return;
    }
    let plan = TapPlan {
        name: "port0".to_owned(),
        create: true,
        offload: true,
    };
    let bench = Bench::new(&plan);
    let (on_wire, of_host) = exchange(&bench, "port0");
    assert!(
        on_wire > 200 && of_host < on_wire - 50,
        "{of_host} of the host became {on_wire}"
    );
    let dropped = bench.host.stats().dropped;
    assert_eq!(dropped, Default::default());
}

#[test]
fn a_device_that_exists_is_used_as_it_is() {
    if !in_namespace("tap_device::a_device_that_exists_is_used_as_it_is") {
        return;
    }
    ip("tuntap add port0 mode tap");
    let plan = TapPlan {
        name: "port0".to_owned(),
        create: false,
        offload: false,
    };
    let bench = Bench::new(&plan);
    let (on_wire, of_host) = exchange(&bench, "port0");
    assert!(on_wire <= of_host, "{of_host} of the host became {on_wire}");
    drop(bench);
    // It is still there, with its address.
    ip("address delete 10.0.0.1/24 dev port0");
}

#[test]
fn a_device_that_is_deleted_is_a_link_that_is_down() {
    if !in_namespace("tap_device::a_device_that_is_deleted_is_a_link_that_is_down") {
        return;
    }
    let plan = TapPlan {
        name: "port0".to_owned(),
        create: true,
        offload: true,
    };
    let bench = Bench::new(&plan);
    let link = || bench.switch.stats().ports[0].link_up;
    assert!(link());
    // A device that is not up takes no frames.
    ip("link set port0 down");
    bench.send(|ip, frame| ip.udp(1, 2).write(frame, &[]).unwrap());
    eventually("the refusal", || bench.host.stats().dropped.refused == 1);
    ip("link delete port0");
    eventually("the end of the link", || !link());
    bench.send(|ip, frame| ip.udp(1, 2).write(frame, &[]).unwrap());
    let stats = bench.host.stats();
    assert_eq!((stats.connected, stats.dropped.refused), (false, 1));
}

#[test]
fn no_other_interface_of_the_host_is_touched() {
    if !in_namespace("tap_device::no_other_interface_of_the_host_is_touched") {
        return;
    }
    let open = |name: &str, create| {
        let plan = TapPlan {
            name: name.to_owned(),
            create,
            offload: create,
        };
        TapMedium::open(&plan).err()
    };
    assert!(matches!(open("port0", false), Some(TapError::Absent(_))));
    assert!(matches!(open("lo", true), Some(TapError::Exists(_))));
    assert!(matches!(open("lo", false), Some(TapError::Open { .. })));
    for bad in ["", "port%d", "a/b", "a b", "sixteen-letters."] {
        assert!(matches!(open(bad, true), Some(TapError::Name(_))), "{bad:?}");
    }
    // Others may have further queues.
    ip("tuntap add several mode tap multi_queue");
    assert!(matches!(open("several", false), Some(TapError::Open { .. })));
    assert!(open("port0", true).is_none());
    // The device was that of the port, and is gone with it.
    assert!(matches!(open("port0", false), Some(TapError::Absent(_))));
}
