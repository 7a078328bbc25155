//! Tunnels to other switches: two daemons, hostile datagrams, and the kernel's own VXLAN device at the other end. Each
//! test runs again in a network namespace of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mlx5_test_driver::fuzz::exchange;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::wait::{PATIENCE, eventually};
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use vhost_nic::external_port::{ExternalPort, ExternalPortDropStats, VxlanError, VxlanMedium, VxlanPlan};
use vhost_nic::net::Switch;

use crate::host_stack::{HOST_MAC, STATION_MAC, Station, pattern};
use crate::namespace::{in_namespace, ip};
use crate::nic::{NicFunction, machine};

const VNI: u32 = 0x12_3456;
/// The header of the network.
const HEADER: [u8; 8] = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0];
/// Addresses of two hosts, of each family.
const IPV4: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
const IPV6: [&str; 2] = ["fd00::1", "fd00::2"];
/// MAC addresses of a station of each host.
const STATIONS: [[u8; 6]; 2] = [HOST_MAC, STATION_MAC];

/// Of frames between the stations: for local experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

sockopt_impl!(
    /// Datagrams over IPv4 leave without checksum.
    NoChecksum4, SetOnly, libc::SOL_SOCKET, libc::SO_NO_CHECK, bool
);
sockopt_impl!(
    /// Datagrams over IPv6 leave without checksum.
    NoChecksum6, SetOnly, libc::SOL_UDP, libc::UDP_NO_CHECK6_TX, bool
);

fn address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 4789)
}

fn set_up() {
    ip("link set lo up");
    for address in IPV6 {
        ip(&format!("address add {address}/128 dev lo nodad"));
        // The kernel takes packets to it only later.
        eventually("the local route", || {
            let routes = Command::new("ip")
                .args(["-6", "route", "show", "table", "local"])
                .output();
            String::from_utf8_lossy(&routes.unwrap().stdout).contains(&format!("local {address} "))
        });
    }
}

/// The switch of a daemon, with a tunnel and a station.
struct Host {
    switch: Arc<Switch>,
    tunnel: ExternalPort,
    station: Station,
}

impl Host {
    fn new(local: &str, remote: &str) -> Self {
        let switch = Switch::new();
        let plan = VxlanPlan {
            local: address(local),
            remote: address(remote),
            vni: VNI,
        };
        let medium = VxlanMedium::open("tunnel", &plan).unwrap();
        let tunnel = ExternalPort::start(&switch, "tunnel", Box::new(medium), 8 << 20).unwrap();
        let station = Station::new(&switch);
        Self {
            switch,
            tunnel,
            station,
        }
    }

    /// The next frame from the other station to this one, past those of the NICs.
    fn receive(&self) -> Vec<u8> {
        loop {
            let frame = self.station.receive();
            if frame.get(12..14) == Some(&ETHERTYPE) {
                return frame;
            }
        }
    }

    fn dropped(&self) -> ExternalPortDropStats {
        self.tunnel.stats().dropped
    }
}

fn pair(addresses: [&str; 2]) -> [Host; 2] {
    let [first, second] = addresses;
    [Host::new(first, second), Host::new(second, first)]
}

/// A frame from one station to the other.
fn frame(from: usize, length: usize) -> Vec<u8> {
    let head = [&STATIONS[1 - from][..], &STATIONS[from], &ETHERTYPE].concat();
    [&head[..], &pattern(length as u64, length - head.len())].concat()
}

/// Sends a frame of each length in both directions.
fn converse(hosts: &[Host; 2], lengths: &[usize]) {
    for &length in lengths {
        for from in [0, 1] {
            let sent = frame(from, length);
            hosts[from].station.send_bytes(&sent);
            let got = hosts[1 - from].receive();
            assert!(got == sent, "{length} bytes from {from}");
        }
    }
}

#[test]
fn two_daemons_are_joined_by_a_tunnel() {
    if !in_namespace("vxlan::two_daemons_are_joined_by_a_tunnel") {
        return;
    }
    set_up();
    for addresses in [IPV4, IPV6] {
        let hosts = pair(addresses);
        converse(&hosts, &[14, 15, 60, 1514, 9992]);
        let [a, b] = [0, 1].map(|side| {
            let number = side as u8 + 3;
            Node::open(machine(&hosts[side].switch, number), number)
        });
        exchange(&a, &b);
        exchange(&b, &a);
        for (node, host) in [a, b].into_iter().zip(&hosts) {
            assert_eq!(host.dropped(), ExternalPortDropStats::default());
            assert!(host.tunnel.stats().connected);
            assert_eq!(
                node.hca.machine.device_as::<NicFunction>().nic.snapshot().guest_errors,
                Default::default()
            );
            node.close();
        }
    }
}

#[test]
fn datagrams_of_others_and_of_no_valid_header_are_dropped_by_their_names() {
    if !in_namespace("vxlan::datagrams_of_others_and_of_no_valid_header_are_dropped_by_their_names") {
        return;
    }
    set_up();
    let host = Host::new(IPV4[0], IPV4[1]);
    // The peer may send from any port, another host from none.
    let peer = UdpSocket::bind((IPV4[1], 0)).unwrap();
    let other = UdpSocket::bind(("127.0.0.3", 4789)).unwrap();
    let good = frame(1, 60);
    let with = |header: [u8; 8]| [&header[..], &good].concat();
    let mut expected = ExternalPortDropStats::default();
    let mut send = |socket: &UdpSocket, datagram: &[u8], count: fn(&mut ExternalPortDropStats) -> &mut u64| {
        socket.send_to(datagram, address(IPV4[0])).unwrap();
        *count(&mut expected) += 1;
    };
    for length in 0..=8 {
        send(&peer, &HEADER[..length], |drops| &mut drops.malformed);
    }
    for flags in [0, 0xf7, 0x04, 0x80] {
        send(&peer, &with([flags, 0, 0, 0, 0x12, 0x34, 0x56, 0]), |drops| {
            &mut drops.no_vni
        });
    }
    for flag in [0, 1, 2, 4, 5, 6, 7] {
        send(&peer, &with([8 | 1 << flag, 0, 0, 0, 0x12, 0x34, 0x56, 0]), |drops| {
            // The I flag is set already in bit 3; every other one is reserved.
            &mut drops.reserved_bits
        });
    }
    for byte in [1, 2, 3, 7] {
        let mut header = HEADER;
        header[byte] = 0x10;
        send(&peer, &with(header), |drops| &mut drops.reserved_bits);
    }
    for byte in [4, 5, 6] {
        let mut header = HEADER;
        header[byte] ^= 1;
        send(&peer, &with(header), |drops| &mut drops.other_vni);
    }
    send(&other, &with(HEADER), |drops| &mut drops.other_source);
    send(&other, &[], |drops| &mut drops.other_source);
    // The switch counts these.
    for length in [1, 13, 10_001, 65_507 - 8] {
        let datagram = [&HEADER[..], &vec![2; length]].concat();
        peer.send_to(&datagram, address(IPV4[0])).unwrap();
    }
    peer.send_to(&with(HEADER), address(IPV4[0])).unwrap();
    assert!(host.station.receive() == good);
    assert_eq!(host.dropped(), expected);
    let of_switch = host.switch.stats().ports[0].dropped;
    assert_eq!((of_switch.too_short, of_switch.too_long), (2, 2));
    assert_eq!(host.station.receive_within(Duration::ZERO), None);
}

#[test]
fn datagrams_without_checksum_are_received() {
    if !in_namespace("vxlan::datagrams_without_checksum_are_received") {
        return;
    }
    set_up();
    for [local, remote] in [IPV4, IPV6] {
        let host = Host::new(local, remote);
        let peer = UdpSocket::bind((remote, 0)).unwrap();
        match peer.local_addr().unwrap() {
            SocketAddr::V4(_) => setsockopt(&peer, NoChecksum4, &true).unwrap(),
            SocketAddr::V6(_) => setsockopt(&peer, NoChecksum6, &true).unwrap(),
        }
        let datagram = [&HEADER[..], &frame(1, 60)].concat();
        peer.send_to(&datagram, address(local)).unwrap();
        assert!(host.station.receive() == frame(1, 60));
        assert_eq!(host.dropped(), ExternalPortDropStats::default());
    }
}

#[test]
fn a_peer_that_is_absent_or_restarted_ends_nothing() {
    if !in_namespace("vxlan::a_peer_that_is_absent_or_restarted_ends_nothing") {
        return;
    }
    set_up();
    let first = Host::new(IPV4[0], IPV4[1]);
    let node = Node::open(machine(&first.switch, 3), 3);
    for _ in 0..3 {
        // The host of the peer answers that nobody listens.
        for _ in 0..10 {
            first.station.send_bytes(&frame(0, 60));
        }
        eventually("the frames", || first.tunnel.stats().queued_frames == 0);
        let second = Host::new(IPV4[1], IPV4[0]);
        second.station.send_bytes(&frame(1, 100));
        assert!(first.receive() == frame(1, 100));
        let peer = Node::open(machine(&second.switch, 4), 4);
        exchange(&node, &peer);
        peer.close();
    }
    assert_eq!(first.dropped(), ExternalPortDropStats::default());
    node.close();
}

#[test]
fn a_frame_beyond_the_way_is_dropped_and_none_is_fragmented() {
    if !in_namespace("vxlan::a_frame_beyond_the_way_is_dropped_and_none_is_fragmented") {
        return;
    }
    set_up();
    for (addresses, longest) in [(IPV4, 1500 - 36), (IPV6, 1500 - 56)] {
        ip("link set lo mtu 1500");
        let hosts = pair(addresses);
        converse(&hosts, &[longest]);
        hosts[0].station.send_bytes(&frame(0, longest + 1));
        hosts[0].station.send_bytes(&frame(0, 9992));
        converse(&hosts, &[longest]);
        let expected = ExternalPortDropStats {
            too_long: 2,
            ..Default::default()
        };
        assert_eq!(hosts[0].dropped(), expected);
        ip("link set lo mtu 16384");
        converse(&hosts, &[longest + 1, 9992]);
        assert_eq!(hosts[0].dropped(), expected);
    }
}

#[test]
fn frames_are_refused_while_there_is_no_way_and_pass_afterwards() {
    if !in_namespace("vxlan::frames_are_refused_while_there_is_no_way_and_pass_afterwards") {
        return;
    }
    set_up();
    for address in ["10.9.0.1/32", "10.9.0.2/32"] {
        ip(&format!("address add {address} dev lo"));
    }
    let hosts = pair(["10.9.0.1", "10.9.0.2"]);
    converse(&hosts, &[60]);
    for round in 1..=3 {
        ip("address delete 10.9.0.2/32 dev lo");
        hosts[0].station.send_bytes(&frame(0, 60));
        eventually("the refusal", || hosts[0].dropped().refused == round);
        ip("address add 10.9.0.2/32 dev lo");
        converse(&hosts, &[60, 1000]);
        assert!(hosts[0].tunnel.stats().connected);
    }
}

#[test]
fn a_tunnel_has_one_peer_of_the_same_family() {
    if !in_namespace("vxlan::a_tunnel_has_one_peer_of_the_same_family") {
        return;
    }
    set_up();
    let open = |local: &str, remote: &str, vni| {
        let plan = VxlanPlan {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            vni,
        };
        VxlanMedium::open("tunnel", &plan).err()
    };
    let local = "127.0.0.1:4789";
    assert!(matches!(
        open(local, "127.0.0.2:4789", 1 << 24),
        Some(VxlanError::Vni(_))
    ));
    assert!(matches!(open(local, "[::1]:4789", 1), Some(VxlanError::Families(..))));
    for everybody in ["255.255.255.255:4789", "239.1.1.1:4789", "0.0.0.0:4789", "127.0.0.2:0"] {
        assert!(
            matches!(open(local, everybody, 1), Some(VxlanError::Peer(_))),
            "{everybody}"
        );
    }
    assert!(matches!(
        open("[::1]:4789", "[ff02::1]:4789", 1),
        Some(VxlanError::Peer(_))
    ));
    for (local, remote) in [
        ("[::ffff:127.0.0.1]:4789", "[::ffff:127.0.0.2]:4789"),
        ("[::ffff:127.0.0.1]:4789", "[fd00::2]:4789"),
        ("[fd00::1]:4789", "[::ffff:127.0.0.2]:4789"),
        (local, "[::ffff:127.0.0.2]:4789"),
    ] {
        assert!(
            matches!(open(local, remote, 1), Some(VxlanError::Mapped(_))),
            "{local} {remote}"
        );
    }
    for local in ["127.0.0.1:0", "0.0.0.0:0"] {
        assert!(
            matches!(open(local, "127.0.0.2:4789", 1), Some(VxlanError::Local(_))),
            "{local}"
        );
    }
    for end in [local, "[fd00::1]:4789"] {
        assert!(matches!(open(end, end, 1), Some(VxlanError::Itself(_))), "{end}");
    }
    // Two daemons of one host.
    assert!(open(local, "127.0.0.1:4790", 1).is_none());
    // IPv6 leaves IPv4 to other sockets.
    let all = VxlanPlan {
        local: "[::]:4789".parse().unwrap(),
        remote: address(IPV6[1]),
        vni: 1,
    };
    let of_ipv6 = VxlanMedium::open("tunnel", &all).unwrap();
    assert!(open("0.0.0.0:4789", "127.0.0.2:4789", 1).is_none());
    drop(of_ipv6);
    // An address of another host.
    assert!(matches!(
        open("192.0.2.1:4789", "127.0.0.2:4789", 1),
        Some(VxlanError::Open { .. })
    ));
    // Without a way to the peer.
    assert!(open(local, "192.0.2.1:4789", 1).is_none());
}

/// A network namespace, which a process keeps, until its standard input ends: no later than the test.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let namespace = Self(command.spawn().expect("unshare runs"));
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        eventually("the namespace", || {
            fs::read_link(namespace.path()).is_ok_and(|other| other != own)
        });
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Moves the calling thread into it.
    fn enter(&self) {
        let file = File::open(self.path()).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks the host at 10.0.0.2 for echoes by ICMP and UDP, and compares them. Returns their number.
fn ask_for_echoes() -> usize {
    let icmp = socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).unwrap();
    let icmp = UdpSocket::from(icmp);
    icmp.connect("10.0.0.2:0").unwrap();
    let udp = UdpSocket::bind("10.0.0.1:0").unwrap();
    udp.connect("10.0.0.2:7").unwrap();
    let mut buffer = [0; 2000];
    // The longest that the device's MTU of 1450 bytes allows is the last.
    let lengths = [0, 1, 56, 1000, 1422];
    for length in lengths {
        let data = pattern(1, length);
        icmp.set_read_timeout(Some(PATIENCE)).unwrap();
        icmp.send(&[&[8, 0, 0, 0, 0, 0, 0, 1][..], &data].concat()).unwrap();
        let count = icmp.recv(&mut buffer).expect("an echo by ICMP");
        assert!(buffer[0] == 0 && buffer[8..count] == data, "{length} bytes by ICMP");
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        udp.send(&data).unwrap();
        let count = udp.recv(&mut buffer).expect("an echo by UDP");
        assert!(buffer[..count] == data, "{length} bytes by UDP");
    }
    2 * lengths.len()
}

/// Answer of the station to a frame of the host: its address, or an echo by ICMP or UDP. The sums of the packet stay
/// what they are but for the type of ICMP, to which its checksum is adapted (RFC 1624). That of UDP is left out: the
/// kernel does not fill it in on a way that does not leave the machine.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    answer[..6].copy_from_slice(&frame[6..12]);
    answer[6..12].copy_from_slice(&STATION_MAC);
    match (&frame[12..14], frame.get(23)) {
        ([8, 6], _) => {
            answer[21] = 2;
            answer[22..28].copy_from_slice(&STATION_MAC);
            answer[28..32].copy_from_slice(&frame[38..42]);
            answer[32..42].copy_from_slice(&frame[22..32]);
        }
        ([8, 0], Some(protocol @ (1 | 17))) => {
            answer[26..30].copy_from_slice(&frame[30..34]);
            answer[30..34].copy_from_slice(&frame[26..30]);
            match protocol {
                17 => {
                    answer[34..36].copy_from_slice(&frame[36..38]);
                    answer[36..38].copy_from_slice(&frame[34..36]);
                    answer[40..42].fill(0);
                }
                _ => {
                    answer[34] = 0;
                    let (sum, carry) = u16::from_be_bytes([frame[36], frame[37]]).overflowing_add(0x0800);
                    answer[36..38].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
                }
            }
        }
        _ => return None,
    }
    Some(answer)
}

#[test]
fn the_kernels_vxlan_device_is_a_peer() {
    if !in_namespace("vxlan::the_kernels_vxlan_device_is_a_peer") {
        return;
    }
    let probe = Command::new("ip")
        .args("link add probe type vxlan id 1 dstport 4789".split(' '))
        .output()
        .expect("iproute2");
    if !probe.status.success() {
        let error = String::from_utf8_lossy(&probe.stderr);
        // EOPNOTSUPP, and what iproute2 says in its place.
        let absent = ["Operation not supported", "Unknown device type"];
        assert!(absent.iter().any(|text| error.contains(text)), "{error}");
        println!("skipped: the kernel has no VXLAN device (CONFIG_VXLAN)");
        return;
    }
    ip("link delete probe");
    let far = Arc::new(Namespace::new());
    ip("link add u0 type veth peer name u1");
    ip(&format!("link set u1 netns {}", far.0.id()));
    ip("address add 192.168.7.1/24 dev u0");
    ip("link set u0 up");
    let client = {
        let far = Arc::clone(&far);
        thread::spawn(move || {
            far.enter();
            ip("link set lo up");
            ip("address add 192.168.7.2/24 dev u1");
            ip("link set u1 up");
            ip(&format!(
                "link add vx0 mtu 1450 type vxlan id {VNI} local 192.168.7.2 remote 192.168.7.1 dstport 4789"
            ));
            fs::write("/proc/sys/net/ipv6/conf/vx0/disable_ipv6", "1").unwrap();
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
            ip("address add 10.0.0.1/24 dev vx0");
            ip("link set vx0 up");
            ask_for_echoes()
        })
    };
    let host = Host::new("192.168.7.1", "192.168.7.2");
    let mut answered = 0;
    while !client.is_finished() {
        let frame = host.station.receive_within(Duration::from_millis(50));
        if let Some(answer) = frame.and_then(|frame| answer(&frame)) {
            answered += 1;
            host.station.send_bytes(&answer);
        }
    }
    let echoes = client.join().unwrap();
    assert!(
        echoes == 10 && answered > echoes,
        "{echoes} echoes of {answered} answers"
    );
    assert_eq!(host.dropped(), ExternalPortDropStats::default());
}
