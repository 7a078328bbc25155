//! Frames between guests: every protocol, both MTUs, VLANs and multicast, with the checksums verified on the wire.

use std::thread;

use guest_harness::{Flow, NIC, Result};

use crate::fixture::{Fixture, Setup, step};
use crate::frames::Capture;

#[test]
fn two_guests_exchange_frames_of_every_kind() -> Result<()> {
    let fixture = Setup::new("nic-ethernet", 2).start()?;
    let run = |name: &str, test: fn(&Fixture) -> Result<()>| step(name, || test(&fixture));
    run("ping", ping)?;
    run("digests", digests)?;
    run("BIG TCP", big_tcp)?;
    run("iperf3", iperf)?;
    run("checksums", |fixture| checksums(fixture, 1500))?;
    run("CQE compression", cqe_compression)?;
    run("VLAN", vlan)?;
    run("multicast", multicast)?;
    step("jumbo frames", || {
        fixture.set_mtu(9000)?;
        fixture.flow(0, 1).ping(5, 8972)?;
        fixture.flow_v6(1, 0).ping(5, 8952)?;
        checksums(&fixture, 9000)?;
        iperf(&fixture)
    })?;
    fixture.finish()
}

#[test]
fn four_guests_exchange_frames_in_every_pair() -> Result<()> {
    let fixture = Setup::new("nic-four", 4).ethernet_only().start()?;
    for (from, to) in pairs(4) {
        fixture.flow(from, to).ping(3, 1472)?;
        fixture.flow_v6(to, from).ping(3, 1452)?;
    }
    // A ring, so that every guest sends and receives at the same time.
    thread::scope(|scope| {
        let fixture = &fixture;
        let threads: Vec<_> = (0..4)
            .map(|from| scope.spawn(move || fixture.flow(from, (from + 1) % 4).iperf(3, "")))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let iperf = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            assert!(iperf.bytes > 0, "{iperf:?}");
            Ok(())
        })
    })?;
    fixture.finish()
}

fn pairs(guests: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..guests).flat_map(move |a| (a + 1..guests).map(move |b| (a, b)))
}

fn ping(fixture: &Fixture) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        for size in [16, 17, 56, 1472] {
            fixture.flow(from, to).ping(5, size)?;
        }
        fixture.flow_v6(from, to).ping(5, 1452)?;
    }
    Ok(())
}

fn digests(fixture: &Fixture) -> Result<()> {
    fixture.flow(0, 1).compare_digests(4)?;
    fixture.flow_v6(1, 0).compare_digests(4)
}

/// Packets of up to 185,000 bytes reach the device (Documentation/networking/netdevices.rst, `gso_max_size`), which
/// mlx5e announces as possible up to 524,280.
fn big_tcp(fixture: &Fixture) -> Result<()> {
    let sizes = |size: u32| {
        fixture.testbed().each(|guest| {
            let script = format!(
                "set -e; ip -d link show {NIC} | grep -q 'tso_max_size 524280'\n\
                 ip link set {NIC} gso_max_size {size} gso_ipv4_max_size {size} \
                 gro_max_size {size} gro_ipv4_max_size {size}\n\
                 sysctl -qw net.ipv4.tcp_wmem='4096 4000000 16000000' net.ipv4.tcp_rmem='4096 4000000 16000000'"
            );
            guest.run(&script)?.check().map(drop)
        })
    };
    sizes(185_000)?;
    for flow in [fixture.flow(0, 1), fixture.flow_v6(1, 0)] {
        let before = tso(fixture)?;
        flow.compare_digests(24)?;
        let after = tso(fixture)?;
        let average = (after.1 - before.1) / (after.0 - before.0);
        assert!(
            average > 65_536,
            "{average} bytes per TSO packet: none longer than its length field"
        );
    }
    sizes(65_536)
}

/// Packets and bytes that both guests had the device segment.
fn tso(fixture: &Fixture) -> Result<(u64, u64)> {
    let sum = |name| Ok::<_, guest_harness::Error>(counter(fixture, 0, name)? + counter(fixture, 1, name)?);
    Ok((sum("tx_tso_packets")?, sum("tx_tso_bytes")?))
}

/// The driver expands sessions of the segments of a packet to the frames that were sent.
fn cqe_compression(fixture: &Fixture) -> Result<()> {
    let switch = |state: &str| {
        fixture.testbed().each(|guest| {
            // The driver has no hashes while it compresses, and would say so in the log.
            let hashes = if state == "on" { "off" } else { "on" };
            let script = format!(
                "set -e; ethtool -K {NIC} rxhash off; ethtool --set-priv-flags {NIC} rx_cqe_compress {state}\n\
                 ethtool -K {NIC} rxhash {hashes}\n\
                 ethtool --show-priv-flags {NIC} | grep -q 'rx_cqe_compress *: {state}'"
            );
            guest.run(&script)?.check().map(drop)
        })
    };
    let counts = |guest| {
        let [sessions, packets] = ["rx_cqe_compress_blks", "rx_cqe_compress_pkts"];
        Ok::<_, guest_harness::Error>((counter(fixture, guest, sessions)?, counter(fixture, guest, packets)?))
    };
    let initially = fixture.guest(0).run(&format!(
        "ethtool --show-priv-flags {NIC} | grep -q 'rx_cqe_compress *: on'"
    ))?;
    switch("on")?;
    fixture.flow(0, 1).ping(3, 1472)?;
    for (flow, receiver) in [(fixture.flow(0, 1), 1), (fixture.flow_v6(1, 0), 0)] {
        let before = counts(receiver)?;
        flow.compare_digests(8)?;
        let after = counts(receiver)?;
        let (sessions, packets) = (after.0 - before.0, after.1 - before.1);
        eprintln!("{packets} frames in {sessions} sessions");
        assert!(
            sessions > 0 && packets >= 3 * sessions,
            "{packets} frames in {sessions} sessions"
        );
    }
    checksums(fixture, 1500)?;
    switch(if initially.success() { "on" } else { "off" })
}

fn iperf(fixture: &Fixture) -> Result<()> {
    for (name, flow) in [("IPv4", fixture.flow(0, 1)), ("IPv6", fixture.flow_v6(1, 0))] {
        let tcp = flow.iperf(2, "")?;
        let both = flow.iperf(2, "--bidir")?;
        let udp = flow.iperf(2, "--udp --bitrate 10M --length 1400")?;
        assert!(tcp.bytes > 0 && both.bytes > 0, "{tcp:?} {both:?}");
        assert!(udp.packets > 100, "{udp:?}");
        eprintln!(
            "{name}: TCP {:.0} Mbit/s, {} retransmitted; UDP lost {} of {}",
            tcp.bits_per_second / 1e6,
            tcp.retransmits,
            udp.lost,
            udp.packets
        );
    }
    Ok(())
}

/// Checks every received frame: header and payload checksums, and no frame longer than the MTU although the sender
/// offloads segmentation to the device.
fn checksums(fixture: &Fixture, mtu: u32) -> Result<()> {
    let (sender, receiver) = (fixture.guest(0), fixture.guest(1));
    let offloads = sender.run(&format!("ethtool -k {NIC}"))?.check()?;
    for offload in [
        "rx-checksumming: on",
        "tx-checksumming: on",
        "tcp-segmentation-offload: on",
        "tx-tcp6-segmentation: on",
    ] {
        assert!(offloads.stdout.contains(offload), "{offload} in {offloads}");
    }
    let before = counter(fixture, 0, "tx_tso_packets")?;
    let capture = Capture::start(receiver, NIC, mtu)?;
    for flow in [fixture.flow(0, 1), fixture.flow_v6(0, 1)] {
        flow.ping(3, mtu - 48)?;
        flow.iperf(1, "--bitrate 20M")?;
        flow.iperf(1, &format!("--udp --bitrate 2M --length {}", mtu - 100))?;
    }
    let seen = capture.end_without_fault()?;
    for kind in ["ipv4", "ipv6", "tcp", "udp", "icmp", "icmpv6"] {
        assert!(seen[kind].as_u64() > Some(0), "{kind} in {seen}");
    }
    assert_eq!(seen["longest"], mtu, "no full-sized frame: {seen}");
    assert!(
        counter(fixture, 0, "tx_tso_packets")? > before,
        "the device did no segmentation"
    );
    receiver.run(&format!("ethtool -K {NIC} gro on"))?.check().map(drop)
}

/// Reads a counter of `ethtool -S`.
pub fn counter(fixture: &Fixture, guest: usize, name: &str) -> Result<u64> {
    let counters = fixture.guest(guest).run(&format!("ethtool -S {NIC}"))?.check()?;
    let value = counters.stdout.lines().find_map(|line| {
        let (found, value) = line.trim().split_once(": ")?;
        (found == name).then(|| value.parse().ok())?
    });
    Ok(value.unwrap_or_else(|| panic!("{name} in {counters}")))
}

fn vlan(fixture: &Fixture) -> Result<()> {
    let tagged = |guest: usize, vid: u32| {
        let script = format!(
            "set -e; modprobe 8021q\n\
             ip link add link {NIC} name nic.{vid} type vlan id {vid}\n\
             ip addr add 10.6.{vid}.{host}/24 dev nic.{vid}\n\
             ip link set nic.{vid} up",
            host = guest + 1
        );
        fixture.guest(guest).run(&script)?.check()
    };
    for (guest, vid) in [(0, 5), (1, 5), (0, 6)] {
        tagged(guest, vid)?;
    }
    let flow = |vid: u8| {
        Flow::new(
            fixture.guest(0),
            fixture.guest(1),
            std::net::Ipv4Addr::new(10, 6, vid, 2),
        )
    };
    let capture = Capture::start(fixture.guest(1), NIC, 1500)?;
    flow(5).ping(5, 1472)?;
    flow(5).iperf(1, "--bitrate 20M")?;
    flow(5).compare_digests(1)?;
    capture.end_without_fault()?;
    // The receiver has no VLAN 6.
    fixture.guest(1).run("ip addr add 10.6.6.2/24 dev nic.5")?.check()?;
    let other = fixture.guest(0).run("ping -c 2 -W 1 10.6.6.2")?;
    assert!(!other.success(), "{other}");
    let filters = fixture.guest(1).run(&format!("ethtool -k {NIC} | grep vlan"))?;
    assert!(filters.stdout.contains("rx-vlan-filter: on"), "{filters}");
    // With the filter off, and on again.
    fixture
        .guest(1)
        .run(&format!("ethtool -K {NIC} rx-vlan-filter off"))?
        .check()?;
    flow(5).ping(3, 56)?;
    fixture
        .guest(1)
        .run(&format!("ethtool -K {NIC} rx-vlan-filter on; ip link del nic.5"))?
        .check()?;
    fixture
        .guest(0)
        .run("ip link del nic.5; ip link del nic.6")?
        .check()
        .map(drop)
}

/// Multicast frames reach the members of a group only.
fn multicast(fixture: &Fixture) -> Result<()> {
    const RECEIVE: &str = "
import socket, struct, sys
group, interface = sys.argv[1:3]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((group, 7000))
index = socket.if_nametoindex(interface)
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + struct.pack('=4xi', index))
s.settimeout(20)
print('ready', flush=True)
for expected in range(20):
    data, _ = s.recvfrom(2000)
    assert data == bytes([expected]) * 1000, data
print('all')
";
    const SEND: &str = "
import socket, struct, sys, time
group, interface = sys.argv[1:3]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
index = socket.if_nametoindex(interface)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack('=8xi', index))
for number in range(20):
    s.sendto(bytes([number]) * 1000, (group, 7000))
    time.sleep(0.01)
";
    let group = "239.1.2.3";
    let receiver = fixture
        .guest(1)
        .command(["python3", "-c", RECEIVE, group, NIC])
        .spawn()?;
    let ready = std::time::Duration::from_secs(30);
    receiver.wait_line("ready", ready)?;
    let before = counter(fixture, 1, "rx_packets")?;
    fixture
        .guest(0)
        .command(["python3", "-c", SEND, group, NIC])
        .run()?
        .check()?;
    let received = receiver.wait(ready)?.check()?;
    assert!(received.stdout.contains("all"), "{received}");
    let joined = counter(fixture, 1, "rx_packets")? - before;
    assert!(joined >= 20, "{joined} frames");
    // No guest has joined this group, so no steering rule accepts it.
    let before = counter(fixture, 1, "rx_packets")?;
    fixture
        .guest(0)
        .command(["python3", "-c", SEND, "239.9.9.9", NIC])
        .run()?
        .check()?;
    let stray = counter(fixture, 1, "rx_packets")? - before;
    assert!(stray < 20, "{stray} frames of a group that no guest has joined");
    Ok(())
}
