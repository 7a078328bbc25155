//! A port whose peer is a driver of a virtio-net device.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use mlx5_test_driver::wait::eventually;
use tempfile::TempDir;
use vhost::VhostBackend;
use vhost_nic::external_port::{ExternalPort, ExternalPortDropStats};
use vhost_nic::net::Switch;

use crate::host_stack::{HOST_MAC, STATION_MAC, Station, pattern};
use crate::virtio_net_driver::*;
use crate::virtio_net_fuzz;

const ALL: u64 = VERSION_1 | EVENT_IDX | INDIRECT | MERGEABLE | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6;
/// Nothing but the frames.
const LEGACY: u64 = 0;
/// Bytes of frames that wait for the driver.
const QUEUE: usize = 1 << 20;

/// A switch with a port for a front-end, and a station.
struct Bench {
    switch: Arc<Switch>,
    port: ExternalPort,
    station: Station,
    path: PathBuf,
    _directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(1, 1 << 30)
    }

    fn with(pairs: usize, max_memory: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("port.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let switch = Switch::new();
        let port = ExternalPort::serve_vhost_user(&switch, "virtio", listener, pairs, max_memory, QUEUE).unwrap();
        let station = Station::new(&switch);
        Self {
            switch,
            port,
            station,
            path,
            _directory: directory,
        }
    }

    /// A driver whose device is started, with receive buffers.
    fn driver(&self, features: u64) -> Driver {
        let mut driver = Driver::start(&self.path, features, 1);
        (0..SIZE).for_each(|descriptor| driver.post(0, descriptor, 2048));
        self.await_link(true);
        driver
    }

    fn link(&self) -> bool {
        self.switch.stats().ports[0].link_up
    }

    #[track_caller]
    fn await_link(&self, up: bool) {
        eventually("the link", || self.link() == up);
    }

    fn dropped(&self) -> ExternalPortDropStats {
        self.port.stats().dropped
    }
}

fn tcp_frame(sequence: u32, payload: &[u8], push: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(STATION_MAC, HOST_MAC).ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
    let builder = builder.tcp(1000, 2000, sequence, 500).ack(77);
    let builder = if push { builder.psh() } else { builder };
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn udp_frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(STATION_MAC, HOST_MAC).ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
    let mut frame = Vec::new();
    builder.udp(1000, port).write(&mut frame, payload).unwrap();
    frame
}

/// A frame of the driver.
fn from_driver(length: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(HOST_MAC, STATION_MAC).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let mut frame = Vec::new();
    builder
        .udp(5, 6)
        .write(&mut frame, &pattern(length as u64, length))
        .unwrap();
    frame
}

#[test]
fn frames_pass_both_ways_with_any_features() {
    for features in [
        ALL,
        LEGACY,
        VERSION_1,
        MERGEABLE,
        EVENT_IDX,
        VERSION_1 | INDIRECT | MERGEABLE,
        VERSION_1 | GUEST_CSUM,
    ] {
        let bench = Bench::new();
        let mut driver = bench.driver(features);
        for length in [0, 1, 700, 1472] {
            let frame = from_driver(length);
            driver.transmit(0, &[0; 10], &frame);
            assert!(bench.station.receive() == frame, "{features:#x}: {length} bytes");
            let frame = udp_frame(9, &pattern(7, length));
            bench.station.send_bytes(&frame);
            let received = driver.receive(0);
            // DATA_VALID, if the driver can make use of it.
            let flags = if features & GUEST_CSUM == 0 { 0 } else { 2 };
            assert_eq!(received.header, [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0], "{features:#x}");
            assert_eq!(received.buffers, 1);
            assert!(received.frame == frame, "{features:#x}: {length} bytes");
        }
        assert_eq!(bench.dropped(), ExternalPortDropStats::default());
    }
}

#[test]
fn a_frame_in_many_parts_is_one() {
    let bench = Bench::new();
    let mut driver = bench.driver(ALL);
    let frame = from_driver(1000);
    let bytes = [&[0; 12][..], &frame].concat();
    let at = Driver::buffer(0);
    driver.write(at, &bytes);
    // The header is in several, and shares one with the frame.
    let mut parts = Vec::new();
    let (mut from, mut length) = (0, 1);
    while from < bytes.len() {
        let part = length.min(bytes.len() - from);
        parts.push((at + from as u64, part as u32, false));
        (from, length) = (from + part, length + 7);
    }
    driver.offer(1, 0, &parts);
    assert_eq!(driver.wait_used(1), (0, 0));
    assert!(bench.station.receive() == frame);
    driver.offer_indirect(1, 63, Driver::buffer(1), &parts);
    assert_eq!(driver.wait_used(1), (63, 0));
    assert!(bench.station.receive() == frame);
}

#[test]
fn what_the_driver_leaves_undone_is_done() {
    let bench = Bench::new();
    let mut driver = bench.driver(ALL);
    let payload = pattern(1, 4000);
    let builder = PacketBuilder::ethernet2(HOST_MAC, STATION_MAC).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let mut large = Vec::new();
    builder
        .tcp(1, 2, 100, 9)
        .ack(5)
        .psh()
        .write(&mut large, &payload)
        .unwrap();
    // NEEDS_CSUM, TSO over IPv4 in segments of 1000 bytes, checksum at 34 + 16.
    driver.transmit(0, &[1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0], &large);
    let mut got = Vec::new();
    for _ in 0..4 {
        let frame = bench.station.receive();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP");
        };
        let ip = packet.net.unwrap();
        let ip = ip.ipv4_ref().unwrap().header();
        let checksum = tcp.calc_checksum_ipv4(ip.source(), ip.destination());
        assert_eq!(checksum, Ok(tcp.checksum()));
        assert_eq!(tcp.sequence_number(), 100 + got.len() as u32);
        got.extend_from_slice(tcp.payload());
    }
    assert!(got == payload);
}

#[test]
fn a_frame_takes_as_many_buffers_as_it_needs_or_waits() {
    let bench = Bench::new();
    let mut driver = Driver::start(&bench.path, ALL, 1);
    for descriptor in 0..3 {
        driver.post(0, descriptor, 512);
    }
    bench.await_link(true);
    let long = udp_frame(9, &pattern(1, 1900));
    bench.station.send_bytes(&long);
    bench.station.send_bytes(&udp_frame(9, b"later"));
    eventually("the queue", || bench.port.stats().queued_frames == 1);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.take_used(0), None, "a part of a frame");
    for descriptor in 3..6 {
        driver.post(0, descriptor, 512);
    }
    let received = driver.receive(0);
    assert_eq!(received.buffers, 4);
    assert!(received.frame == long);
    assert!(driver.receive(0).frame == udp_frame(9, b"later"));
    assert_eq!(bench.dropped(), ExternalPortDropStats::default());
}

#[test]
fn a_frame_that_no_buffer_can_hold_is_dropped_and_keeps_none() {
    let bench = Bench::new();
    let mut driver = Driver::start(&bench.path, VERSION_1, 1);
    for descriptor in 0..2 {
        driver.post(0, descriptor, 512);
    }
    bench.await_link(true);
    bench.station.send_bytes(&udp_frame(9, &[1; 1000]));
    bench.station.send_bytes(&udp_frame(9, &[2; 100]));
    bench.station.send_bytes(&udp_frame(9, &[3; 100]));
    assert!(driver.receive(0).frame == udp_frame(9, &[2; 100]));
    assert!(driver.receive(0).frame == udp_frame(9, &[3; 100]));
    assert_eq!(bench.dropped().too_long, 1);
    // Merged: a ring of 4 has at most 4 buffers.
    drop(driver);
    bench.await_link(false);
    let mut driver = Driver::connect(&bench.path, VERSION_1 | MERGEABLE);
    driver.start_ring(0, 4);
    driver.start_ring(1, 4);
    (0..4).for_each(|descriptor| driver.post(0, descriptor, 100));
    bench.await_link(true);
    bench.station.send_bytes(&udp_frame(9, &[1; 400]));
    bench.station.send_bytes(&udp_frame(9, &[2; 300]));
    assert!(driver.receive(0).frame == udp_frame(9, &[2; 300]));
    assert_eq!(bench.dropped().too_long, 2);
}

#[test]
fn segments_that_wait_are_joined_for_a_driver_that_takes_them() {
    let bench = Bench::new();
    let mut driver = Driver::start(&bench.path, ALL, 1);
    driver.post(0, 0, 60);
    bench.await_link(true);
    let data = pattern(1, 5000);
    let mut sequence = 10;
    for (index, part) in data.chunks(1000).enumerate() {
        bench.station.send_bytes(&tcp_frame(sequence, part, index == 4));
        sequence += part.len() as u32;
    }
    eventually("the queue", || bench.port.stats().queued_frames <= 4);
    for descriptor in 1..10 {
        driver.post(0, descriptor, 1024);
    }
    let mut got = Vec::new();
    let mut frames = 0;
    while got.len() < data.len() {
        let received = driver.receive(0);
        let packet = SlicedPacket::from_ethernet(&received.frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP");
        };
        assert_eq!(tcp.sequence_number(), 10 + got.len() as u32);
        assert_eq!(tcp.psh(), got.len() + tcp.payload().len() == data.len());
        if tcp.payload().len() > 1000 {
            // NEEDS_CSUM, TSO over IPv4, headers of 54 bytes, segments of 1000, checksum at 34 + 16.
            assert_eq!(received.header, [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0]);
        }
        got.extend_from_slice(tcp.payload());
        frames += 1;
    }
    assert!(got == data);
    assert!(frames < 5, "{frames} frames");
    // Without the feature each is alone.
    drop(driver);
    bench.await_link(false);
    let mut driver = bench.driver(VERSION_1 | MERGEABLE | GUEST_CSUM);
    for index in 0..5 {
        bench
            .station
            .send_bytes(&tcp_frame(index * 1000, &[index as u8; 1000], false));
    }
    for index in 0..5 {
        assert!(driver.receive(0).frame == tcp_frame(index * 1000, &[index as u8; 1000], false));
    }
}

#[test]
fn the_flows_of_several_pairs_keep_their_order() {
    let bench = Bench::with(2, 1 << 30);
    let mut driver = Driver::start(&bench.path, ALL, 2);
    for pair in 0..2 {
        (0..SIZE).for_each(|descriptor| driver.post(pair, descriptor, 256));
    }
    bench.await_link(true);
    for number in 0..5 {
        for port in 0..16 {
            bench.station.send_bytes(&udp_frame(port, &[number]));
        }
    }
    let mut next = [0; 16];
    let mut by_pair = [0; 2];
    for _ in 0..80 {
        let pair = {
            let mut found = None;
            eventually("a frame", || {
                found = (0..2).find(|pair| driver.has_used(2 * pair));
                found.is_some()
            });
            found.unwrap()
        };
        by_pair[pair] += 1;
        let frame = driver.receive(pair).frame;
        let (port, number) = (frame[37], frame[42]);
        assert_eq!(number, next[usize::from(port)], "port {port}");
        next[usize::from(port)] += 1;
    }
    assert_eq!(next, [5; 16]);
    assert!(
        by_pair.iter().all(|frames| *frames > 0 && frames % 5 == 0),
        "{by_pair:?}"
    );
    // The driver sends by each.
    for pair in 0..2 {
        let frame = from_driver(100 + pair);
        driver.transmit(pair, &[0; 10], &frame);
        assert!(bench.station.receive() == frame);
    }
}

#[test]
fn a_driver_that_asks_for_no_interrupt_gets_none() {
    for features in [ALL, VERSION_1 | MERGEABLE] {
        let bench = Bench::new();
        let mut driver = bench.driver(features);
        driver.interrupts(0);
        driver.silence(0);
        bench.station.send_bytes(&udp_frame(9, b"silent"));
        driver.receive(0);
        bench.station.send_bytes(&udp_frame(9, b"silent"));
        driver.receive(0);
        assert_eq!(driver.interrupts(0), 0, "{features:#x}");
        driver.arm(0);
        bench.station.send_bytes(&udp_frame(9, b"armed"));
        driver.receive(0);
        eventually("the interrupt", || driver.interrupts(0) > 0);
    }
}

#[test]
fn the_link_is_up_while_the_device_is_started() {
    let bench = Bench::new();
    assert!(!bench.link());
    let mut driver = bench.driver(ALL);
    // A frame that waits is dropped when the driver stops its device.
    let all: Vec<_> = (0..SIZE).collect();
    for _ in &all {
        bench.station.send_bytes(&udp_frame(9, &[1; 100]));
    }
    all.iter().for_each(|_| drop(driver.receive(0)));
    bench.station.send_bytes(&udp_frame(9, b"waits"));
    eventually("the queue", || bench.port.stats().queued_frames == 0);
    driver.stop_ring(0);
    bench.await_link(false);
    driver.stop_ring(1);
    assert_eq!(bench.dropped().disconnected, 1);
    bench.station.send_bytes(&udp_frame(9, b"nobody"));
    drop(driver);
    // The next front-end on the same socket gets nothing of it.
    let mut driver = bench.driver(LEGACY);
    bench.station.send_bytes(&udp_frame(9, b"next"));
    assert!(driver.receive(0).frame == udp_frame(9, b"next"));
    let stats = bench.port.stats();
    assert_eq!((stats.connections, stats.medium), (2, "vhost-user"));
    drop(driver);
    bench.await_link(false);
}

#[test]
fn what_is_no_frame_is_dropped_and_counted() {
    let bench = Bench::new();
    let mut driver = bench.driver(ALL);
    let at = Driver::buffer(0);
    driver.write(at, &[0; 16]);
    let bad: [&[Part]; 6] = [
        // Less than a header, and nothing behind it.
        &[(at, 5, false)],
        &[(at, 12, false)],
        // Not in the memory, or beyond it.
        &[(0x10, 100, false)],
        &[(BASE + MEMORY - 50, 100, false)],
        // Longer than any frame.
        &[(at, 69_633 + 12, false)],
        // The device would have to write.
        &[(at, 100, true)],
    ];
    for parts in bad {
        driver.offer(1, 0, parts);
        assert_eq!(driver.wait_used(1), (0, 0), "{parts:?}");
    }
    // A segmentation that was not negotiated, and a checksum beyond the frame.
    driver.transmit(0, &[0, 3, 0, 0, 100, 0, 0, 0, 0, 0], &from_driver(10));
    driver.transmit(0, &[1, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0], &from_driver(10));
    assert_eq!(bench.dropped().malformed, 8);
    // The device goes on.
    driver.transmit(0, &[0; 10], &from_driver(10));
    assert!(bench.station.receive() == from_driver(10));
}

#[test]
fn a_ring_that_makes_no_sense_is_not_served_until_the_device_is_started_again() {
    let bench = Bench::new();
    let mut driver = bench.driver(ALL);
    driver.advance(1, SIZE + 1);
    driver.frontend.get_features().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.take_used(1), None);
    // The other direction is not affected.
    bench.station.send_bytes(&udp_frame(9, b"still"));
    assert!(driver.receive(0).frame == udp_frame(9, b"still"));
    // A receive buffer that is not in the memory.
    drop(driver);
    bench.await_link(false);
    let mut driver = Driver::start(&bench.path, ALL, 1);
    driver.offer(0, 0, &[(0x10, 2048, true)]);
    bench.await_link(true);
    bench.station.send_bytes(&udp_frame(9, b"nowhere"));
    driver.transmit(0, &[0; 10], &from_driver(10));
    assert!(bench.station.receive() == from_driver(10));
    assert_eq!(driver.take_used(0), None);
}

#[test]
fn a_front_end_with_memory_beyond_the_limit_is_disconnected() {
    let bench = Bench::with(1, MEMORY);
    let mut driver = Driver::start(&bench.path, ALL, 1);
    driver.transmit(0, &[0; 10], &from_driver(10));
    assert!(bench.station.receive() == from_driver(10));
    let bench = Bench::with(1, MEMORY - 1);
    let driver = Driver::connect(&bench.path, ALL);
    eventually("the end", || driver.frontend.get_features().is_err());
    assert!(!bench.link());
}

#[test]
fn a_driver_that_takes_nothing_costs_a_bounded_queue() {
    let bench = Bench::new();
    let driver = Driver::start(&bench.path, ALL, 1);
    driver.frontend.get_features().unwrap();
    drop(driver);
    let mut driver = Driver::start(&bench.path, ALL, 1);
    driver.post(0, 0, 10);
    bench.await_link(true);
    let frame = udp_frame(9, &[0; 1000]);
    for _ in 0..2000 {
        bench.station.send_bytes(&frame);
    }
    let stats = bench.port.stats();
    assert!(stats.queued_bytes <= QUEUE as u64);
    assert!(stats.dropped.queue_full > 900, "{stats:?}");
}

#[test]
fn random_drivers_hurt_nobody() {
    let mut steps = 0;
    for seed in 0.. {
        steps += virtio_net_fuzz::run(&pattern(seed, 2000));
        if steps >= 10_000 {
            break;
        }
    }
}
