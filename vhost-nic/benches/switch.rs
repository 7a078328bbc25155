//! The switch, and the NIC's work per frame.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mlx5_prm::steering::FteMatchParam;
use vhost_nic::frame::checksum::{self, Coverage, Fill, Sum};
use vhost_nic::frame::rss::{HashFunction, KEY_LENGTH, L3Protocol, L4Protocol, RssHash, Toeplitz};
use vhost_nic::frame::segmentation::Segments;
use vhost_nic::frame::view::FrameView;
use vhost_nic::hca::steering::{
    Actions, Destination, FlowTables, Miss, NewEntry, NewGroup, NewTable, action, table_type::NIC_RX,
};
use vhost_nic::net::{Frame, Port, Switch, SwitchPort};

const SIZES: [usize; 2] = [64, 1500];

/// Counts received bytes.
#[derive(Default)]
struct Sink(AtomicU64);

impl Port for Sink {
    fn receive(&self, frame: Frame<'_>) {
        self.0.fetch_add(frame.longest() as u64, Ordering::Relaxed);
    }
}

fn mac(number: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0xc5, number as u8]
}

/// A TCP frame of `size` bytes with valid checksums.
fn tcp_frame(to: [u8; 6], from: [u8; 6], size: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; size];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let [high, low] = (size as u16).wrapping_sub(14).to_be_bytes();
    frame[14..34].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    checksum::fill(&mut frame, Fill { l3: true, l4: true });
    frame
}

struct Network {
    sinks: Vec<Arc<Sink>>,
    ports: Vec<SwitchPort>,
}

/// A switch that has learned the station of every port.
fn network(count: usize) -> Network {
    let switch = Switch::new();
    let sinks: Vec<_> = (0..count).map(|_| Arc::<Sink>::default()).collect();
    let attach = |sink: &Arc<Sink>| switch.attach("port", Arc::downgrade(sink) as Weak<dyn Port>);
    let ports: Vec<_> = sinks.iter().map(attach).collect();
    for (number, port) in ports.iter().enumerate() {
        port.send(Frame::new(&tcp_frame([0xff; 6], mac(number), 64)));
    }
    Network { sinks, ports }
}

fn forwarding(c: &mut Criterion) {
    let mut group = c.benchmark_group("switch");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        for count in [2, 4, 16] {
            let network = network(count);
            let frames: Vec<_> = (0..count)
                .map(|n| tcp_frame(mac((n + 1) % count), mac(n), size))
                .collect();
            let mut next = 0;
            group.bench_function(BenchmarkId::new(format!("unicast-{size}"), count), |b| {
                b.iter(|| {
                    network.ports[next].send(Frame::new(black_box(&frames[next])));
                    next = (next + 1) % count;
                });
            });
            let broadcast = tcp_frame([0xff; 6], mac(0), size);
            group.bench_function(BenchmarkId::new(format!("broadcast-{size}"), count), |b| {
                b.iter(|| network.ports[0].send(Frame::new(black_box(&broadcast))));
            });
            assert!(network.sinks.iter().all(|sink| sink.0.load(Ordering::Relaxed) > 0));
        }
    }
    group.finish();
}

/// Two threads that send to each other's port.
fn contention(c: &mut Criterion) {
    let mut group = c.benchmark_group("switch");
    group.throughput(Throughput::Elements(2));
    let network = network(2);
    let frames = [0, 1].map(|n| tcp_frame(mac(1 - n), mac(n), 64));
    group.bench_function("two-threads-64", |b| {
        b.iter_custom(|rounds| {
            let begin = Instant::now();
            std::thread::scope(|scope| {
                for (port, frame) in network.ports.iter().zip(&frames) {
                    scope.spawn(move || (0..rounds).for_each(|_| port.send(Frame::new(black_box(frame)))));
                }
            });
            begin.elapsed()
        });
    });
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for size in [64, 1500, 65536] {
        let bytes = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("sum", size), |b| {
            b.iter(|| Sum::of(black_box(&bytes)).fold())
        });
    }
    for size in SIZES {
        let mut frame = tcp_frame(mac(1), mac(2), size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("fill", size), |b| {
            b.iter(|| checksum::fill(black_box(&mut frame), Fill { l3: true, l4: true }));
        });
        group.bench_function(BenchmarkId::new("verify", size), |b| {
            b.iter(|| FrameView::new(black_box(&frame)).map(|view| checksum::verify(&view, Coverage::Packet)));
        });
    }
    group.finish();
}

fn segmentation(c: &mut Criterion) {
    let mut group = c.benchmark_group("tso");
    let frame = tcp_frame(mac(1), mac(2), 64_000);
    group.throughput(Throughput::Bytes(frame.len() as u64));
    let mut buffer = Vec::new();
    group.bench_function("64000-by-1448", |b| {
        b.iter(|| {
            let fill = Fill { l3: true, l4: true };
            Segments::new(black_box(&frame), 1448, fill)
                .map(|segments| segments.emit(&mut buffer, |segment| assert!(!black_box(segment).is_empty())))
        });
    });
    group.finish();
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("toeplitz");
    let toeplitz = Toeplitz::new(&[0x6d; KEY_LENGTH]);
    group.throughput(Throughput::Elements(1));
    for length in [12, 36] {
        let input = vec![0x5a; length];
        group.bench_function(BenchmarkId::new("input", length), |b| {
            b.iter(|| toeplitz.hash(black_box(&input)))
        });
    }
    let function = HashFunction::Toeplitz(toeplitz);
    let rss = RssHash {
        function,
        symmetric: false,
        l3: L3Protocol::Ipv4,
        l4: L4Protocol::Tcp,
        fields: 0xf,
    };
    let frame = tcp_frame(mac(1), mac(2), 64);
    group.bench_function("parse-and-hash", |b| {
        b.iter(|| FrameView::new(black_box(&frame)).map(|view| rss.hash(&view)))
    });
    group.finish();
}

/// Three tables as mlx5e has them: VLANs, addresses, traffic types.
fn steering(c: &mut Criterion) {
    let flows = FlowTables::<u32>::new(&Arc::default());
    let mut next = None;
    for (level, set) in [
        (57, set_protocol as fn(&mut FteMatchParam, bool)),
        (56, set_address),
        (55, set_vlan),
    ] {
        let miss = Miss::Default;
        let table = flows
            .create_table(NewTable {
                table_type: NIC_RX,
                level,
                log_size: 4,
                miss,
            })
            .expect("a table");
        let (mut criteria, mut value) = (FteMatchParam::default(), FteMatchParam::default());
        set(&mut criteria, true);
        set(&mut value, false);
        let new = NewGroup {
            table_type: NIC_RX,
            table,
            start: 0,
            end: 7,
            criteria_enable: 1,
            criteria: &criteria,
        };
        let group = flows.create_group(new).expect("a group");
        let destination = next.map_or(Destination::Tir(1), Destination::Table);
        let actions = Actions {
            action: action::FWD_DEST,
            destinations: vec![destination],
            ..Actions::default()
        };
        flows
            .create_entry(NewEntry {
                table_type: NIC_RX,
                table,
                group,
                index: 0,
                value: &value,
                actions,
            })
            .expect("an entry");
        flows.set_root(NIC_RX, Some(table)).expect("a root");
        next = Some(table);
    }
    let frame = tcp_frame(mac(1), mac(2), 64);
    let mut deliveries = Vec::new();
    let mut group = c.benchmark_group("steering");
    group.throughput(Throughput::Elements(1));
    group.bench_function("three-tables", |b| {
        b.iter(|| FrameView::new(black_box(&frame)).map(|view| flows.classify(NIC_RX, &view, &mut deliveries)));
    });
    assert_eq!(deliveries.len(), 1);
    group.finish();
}

fn set_vlan(param: &mut FteMatchParam, mask: bool) {
    param.outer_headers_mut().set_cvlan_tag(mask);
    param.outer_headers_mut().set_svlan_tag(mask);
}

fn set_address(param: &mut FteMatchParam, mask: bool) {
    let [a, b, c, d, e, f] = if mask { [0xff; 6] } else { mac(1) };
    param
        .outer_headers_mut()
        .set_dmac_47_16(u32::from_be_bytes([a, b, c, d]));
    param.outer_headers_mut().set_dmac_15_0(u16::from_be_bytes([e, f]));
}

fn set_protocol(param: &mut FteMatchParam, mask: bool) {
    param.outer_headers_mut().set_ip_protocol(if mask { 0xff } else { 6 });
    param
        .outer_headers_mut()
        .set_ethertype(if mask { 0xffff } else { 0x0800 });
}

criterion_group!(
    benches,
    forwarding,
    contention,
    checksums,
    segmentation,
    hashing,
    steering
);
criterion_main!(benches);
