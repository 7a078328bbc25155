//! Ports on an interface of the host, by a packet socket. The interface is one end of a veth pair, the host's network
//! stack is at the other. Each test runs again in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::panic::catch_unwind;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mlx5_test_driver::fuzz::exchange as rdma;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::wait::{PATIENCE, eventually};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use vhost_nic::external_port::{ExternalPort, Incoming, Medium, PacketError, PacketMedium};
use vhost_nic::net::Switch;

use crate::host_stack::{HOST_MAC, STATION_MAC, Station, configure, exchange, pattern};
use crate::namespace::{in_namespace, ip};
use crate::nic::machine;

/// A switch with a port on `port0`, the host behind `port1`, and a station.
struct Bench {
    switch: Arc<Switch>,
    port: ExternalPort,
    station: Station,
}

/// Creates the interfaces. `port0` is down.
fn create_interfaces() {
    ip("link add port0 type veth peer name port1");
    fs::write("/proc/sys/net/ipv6/conf/port0/disable_ipv6", "1").unwrap();
    configure("port1");
}

impl Bench {
    fn new() -> Self {
        Self::on("port0")
    }

    fn on(interface: &str) -> Self {
        let switch = Switch::new();
        let medium = PacketMedium::open(interface).unwrap();
        let port = ExternalPort::start(&switch, "host", Box::new(medium), 8 << 20).unwrap();
        let station = Station::new(&switch);
        Self { switch, port, station }
    }

    fn link_up(&self) -> bool {
        self.switch.stats().ports[0].link_up
    }

    fn await_link(&self, up: bool) {
        eventually("the link", || self.link_up() == up);
        assert_eq!(self.port.stats().connected, up);
    }
}

/// Sends a datagram to the station, by the interface of an address.
fn send_datagram(from: &str, to: &str, data: &[u8]) {
    let socket = UdpSocket::bind((from, 1000)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.send_to(data, (to, 2000)).unwrap();
}

/// Whether the host says this about an interface.
fn shows(interface: &str, what: &str) -> bool {
    let output = Command::new("ip")
        .args(["-d", "-o", "link", "show", interface])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().contains(what)
}

fn promiscuity() -> bool {
    shows("port0", " promiscuity 1 ")
}

/// Takes `port0` up, and waits until both pass frames.
fn take_up() {
    ip("link set port0 up");
    for interface in ["port0", "port1"] {
        eventually("the carrier", || shows(interface, " state UP "));
    }
}

#[test]
fn the_host_leaves_checksums_and_segmentation_to_the_port() {
    if !in_namespace("packet_socket::the_host_leaves_checksums_and_segmentation_to_the_port") {
        return;
    }
    create_interfaces();
    take_up();
    assert!(!promiscuity());
    let bench = Bench::new();
    bench.await_link(true);
    assert!(promiscuity());
    let (on_wire, of_host) = exchange(&bench.station, "port1");
    assert!(
        on_wire > 200 && of_host < on_wire - 50,
        "{of_host} of the host became {on_wire}"
    );
    assert_eq!(bench.port.stats().dropped, Default::default());
    drop(bench);
    assert!(!promiscuity());
}

/// Gives the host addresses on the interface and on another one, to send datagrams by both.
fn let_the_host_send() {
    ip("address add 10.1.0.1/24 broadcast 10.1.0.255 dev port0");
    ip("link add other0 type veth peer name other1");
    ip("address add 10.2.0.1/24 broadcast 10.2.0.255 dev other0");
    ip("link set other0 up");
    ip("link set other1 up");
}

#[test]
fn frames_of_the_host_by_the_same_interface_do_not_enter() {
    if !in_namespace("packet_socket::frames_of_the_host_by_the_same_interface_do_not_enter") {
        return;
    }
    create_interfaces();
    take_up();
    let_the_host_send();
    let bench = Bench::new();
    bench.await_link(true);
    for round in 0..10 {
        send_datagram("10.1.0.1", "10.1.0.255", b"out by the interface");
        send_datagram("10.2.0.1", "10.2.0.255", b"out by another one");
        send_datagram("10.0.0.1", "10.0.0.2", &[round; 20]);
        assert_eq!(bench.station.receive()[42..], [round; 20]);
    }
}

#[test]
fn no_frame_of_before_the_port_enters() {
    if !in_namespace("packet_socket::no_frame_of_before_the_port_enters") {
        return;
    }
    create_interfaces();
    take_up();
    let_the_host_send();
    // Out by the interface, and in and out by others.
    let stop = AtomicBool::new(false);
    let opened = || {
        let mut medium = PacketMedium::open("port0").unwrap();
        let mut frame = Vec::new();
        while medium.receive(&mut frame) != Incoming::Nothing {
            assert!(frame.is_empty(), "{frame:02x?}");
        }
    };
    thread::scope(|scope| {
        let senders = [("10.1.0.1", "10.1.0.255"), ("10.2.0.1", "10.2.0.255")].map(|(from, to)| {
            let stop = &stop;
            scope.spawn(move || {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.set_broadcast(true).unwrap();
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    socket.send_to(b"not to the port", (to, 2000)).unwrap();
                    sent += 1;
                }
                sent
            })
        });
        let result = catch_unwind(|| (0..200).for_each(|_| opened()));
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            assert!(sender.join().unwrap() > 50);
        }
        result.unwrap();
    });
}

#[test]
fn two_daemons_are_joined_by_interfaces_and_vlan_tags_are_where_they_belong() {
    if !in_namespace("packet_socket::two_daemons_are_joined_by_interfaces_and_vlan_tags_are_where_they_belong") {
        return;
    }
    ip("link add port0 type veth peer name port1");
    for interface in ["port0", "port1"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
    }
    ip("link set port1 up");
    take_up();
    let hosts = ["port0", "port1"].map(Bench::on);
    hosts.iter().for_each(|host| host.await_link(true));
    // The kernel takes the outer tag out of a frame that it receives.
    let tags: [&[u8]; 5] = [
        &[],
        &[0x81, 0, 0, 7],
        &[0x81, 0, 0xef, 0xff],
        &[0x88, 0xa8, 0, 7],
        &[0x88, 0xa8, 0x20, 7, 0x81, 0, 0, 8],
    ];
    for (tag, length) in tags.into_iter().flat_map(|tag| [(tag, 46), (tag, 1400)]) {
        for from in [0, 1] {
            let addresses = [&[STATION_MAC, HOST_MAC][..], &[HOST_MAC, STATION_MAC]][from].concat();
            let frame = [&addresses[..], tag, &[0x88, 0xb5], &pattern(length, length as usize)].concat();
            hosts[from].station.send_bytes(&frame);
            let got = hosts[1 - from].station.receive_within(PATIENCE);
            assert!(
                got.is_some_and(|got| got == frame),
                "{tag:02x?}, {length} bytes from {from}"
            );
        }
    }
    let [a, b] = [0, 1].map(|side| {
        let number = side as u8 + 3;
        Node::open(machine(&hosts[side].switch, number), number)
    });
    rdma(&a, &b);
    rdma(&b, &a);
    a.close();
    b.close();
    for host in hosts {
        assert_eq!(host.port.stats().dropped, Default::default());
    }
}

#[test]
fn an_interface_that_is_down_is_a_link_that_is_down() {
    if !in_namespace("packet_socket::an_interface_that_is_down_is_a_link_that_is_down") {
        return;
    }
    create_interfaces();
    let bench = Bench::new();
    assert!(!bench.link_up());
    for round in 1..=3 {
        take_up();
        bench.await_link(true);
        assert_eq!(bench.port.stats().connections, 2 * round - 1);
        send_datagram("10.0.0.1", "10.0.0.2", &[1; 20]);
        assert_eq!(bench.station.receive()[42..], [1; 20]);
        // Without carrier.
        ip("link set port1 down");
        bench.await_link(false);
        ip("link set port1 up");
        ip("neighbour replace 10.0.0.2 lladdr 52:54:0:0:c5:2 dev port1");
        take_up();
        bench.await_link(true);
        send_datagram("10.0.0.1", "10.0.0.2", &[2; 20]);
        assert_eq!(bench.station.receive()[42..], [2; 20]);
        ip("link set port0 down");
        bench.await_link(false);
    }
    take_up();
    bench.await_link(true);
    ip("link delete port0");
    bench.await_link(false);
    // Another one of the same name is not the port's.
    create_interfaces();
    take_up();
    send_datagram("10.0.0.1", "10.0.0.2", b"to nobody");
    assert_eq!(bench.station.receive_within(std::time::Duration::from_millis(50)), None);
    assert!(!bench.link_up());
}

/// Whether a netlink socket of this namespace has lost notifications.
fn notifications_are_lost() -> bool {
    let sockets = fs::read_to_string("/proc/net/netlink").unwrap();
    let mut lines = sockets.lines();
    let drops = lines
        .next()
        .unwrap()
        .split_whitespace()
        .position(|column| column == "Drops");
    lines.any(|line| line.split_whitespace().nth(drops.expect("the column")) != Some("0"))
}

#[test]
fn the_state_is_asked_for_when_notifications_are_lost() {
    if !in_namespace("packet_socket::the_state_is_asked_for_when_notifications_are_lost") {
        return;
    }
    create_interfaces();
    take_up();
    let mut medium = PacketMedium::open("port0").unwrap();
    let mut frame = Vec::new();
    let mut settle = |medium: &mut PacketMedium| while medium.receive(&mut frame) != Incoming::Nothing {};
    settle(&mut medium);
    assert!(medium.is_connected());
    for up in [false, true, false] {
        // More than the socket holds, and the change after them.
        let changes: String = (0..2000)
            .map(|round| format!("link set port1 mtu {}\n", 1400 + round % 2))
            .collect();
        let mut batch = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        batch.stdin.take().unwrap().write_all(changes.as_bytes()).unwrap();
        assert!(batch.wait().unwrap().success());
        assert!(notifications_are_lost());
        match up {
            true => take_up(),
            false => ip("link set port0 down"),
        }
        assert_eq!(medium.is_connected(), !up);
        settle(&mut medium);
        assert_eq!(medium.is_connected(), up);
    }
}

#[test]
fn frames_without_a_pause_do_not_hide_the_state_of_the_link() {
    if !in_namespace("packet_socket::frames_without_a_pause_do_not_hide_the_state_of_the_link") {
        return;
    }
    create_interfaces();
    take_up();
    let mut medium = PacketMedium::open("port0").unwrap();
    let mut frame = Vec::new();
    while medium.receive(&mut frame) != Incoming::Nothing {}
    for round in 0..200 {
        send_datagram("10.0.0.1", "10.0.0.2", &[round; 20]);
    }
    // An interface that loses its carrier keeps what it has received.
    ip("link set port1 down");
    eventually("the loss of the carrier", || shows("port0", "NO-CARRIER"));
    let mut frames = 0;
    while medium.receive(&mut frame) == Incoming::Frame {
        frames += 1;
    }
    assert!(!medium.is_connected(), "{frames} frames");
    assert!((1..100).contains(&frames), "{frames} frames");
    while medium.receive(&mut frame) == Incoming::Frame {
        frames += 1;
    }
    assert_eq!(frames, 200);
}

#[test]
fn frames_beyond_the_mtu_of_the_interface_are_dropped() {
    if !in_namespace("packet_socket::frames_beyond_the_mtu_of_the_interface_are_dropped") {
        return;
    }
    create_interfaces();
    take_up();
    let bench = Bench::new();
    bench.await_link(true);
    let socket = UdpSocket::bind("10.0.0.1:1000").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let too_long = || bench.port.stats().dropped.too_long;
    let send = |length| {
        let data = pattern(1, length);
        bench
            .station
            .send(|ip, frame| ip.udp(2000, 1000).write(frame, &data).unwrap());
        data
    };
    let mut buffer = [0; 10_000];
    let data = send(1472);
    let count = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..count] == data);
    send(1473);
    eventually("the drop", || too_long() == 1);
    for interface in ["port0", "port1"] {
        ip(&format!("link set {interface} mtu 9000"));
    }
    let data = send(8972);
    let count = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..count] == data);
    assert_eq!(too_long(), 1);
}

#[test]
fn only_an_ethernet_interface_that_exists_is_opened_and_by_a_privilege() {
    if !in_namespace("packet_socket::only_an_ethernet_interface_that_exists_is_opened_and_by_a_privilege") {
        return;
    }
    create_interfaces();
    assert!(matches!(PacketMedium::open("port2"), Err(PacketError::Absent(_))));
    assert!(matches!(PacketMedium::open(""), Err(PacketError::Absent(_))));
    assert!(matches!(PacketMedium::open("lo"), Err(PacketError::NotEthernet(_))));
    assert!(PacketMedium::open("port0").is_ok());
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).unwrap();
    assert!(matches!(PacketMedium::open("port0"), Err(PacketError::Open { .. })));
}
