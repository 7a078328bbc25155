//! RDMA between two guests of one daemon: the cost of a message from doorbell to completion.
//!
//! The driver rings the doorbell and polls; the NIC's thread sends, receives and completes for both guests. `rate` and
//! `bulk` measure CPU time of this thread: what one core can do, on a busy machine too. `latency` is wall-clock time.

#[path = "../tests/common/faulty.rs"]
mod faulty;
#[path = "../tests/common/nic.rs"]
mod nic;
#[path = "common/worker.rs"]
mod worker;

use std::hint;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mlx5_prm::access_reg::PmtuReg;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::buffer::Buffer;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::memory::{Memory, PAGE};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::{Region, Rights};
use vhost_daemon::fault::Faults;
use vhost_daemon::trace::set_flight_recorder;
use vhost_nic::net::Switch;

use crate::faulty::faulty_machine;
use crate::nic::machine;
use crate::worker::Worker;

/// Bytes of each guest's region.
const REGION: u64 = 64 << 20;
/// Log2 of the basic blocks of a send queue: with many requests in flight, and with few.
const LOG_SQ: u8 = 12;
const LOG_SQ_SHORT: u8 = 4;
/// One of this many requests is signaled.
const SIGNALED: u16 = 64;
/// Maximum frame length of the port, with Ethernet header.
const PORT_MTU: u16 = 9022;
/// Code of a path MTU of 4096 bytes.
const MTU_4096: u8 = 5;

/// Observers of the NICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observers {
    /// Nothing at the doors, as in a daemon without a control socket.
    None,
    /// Doors for faults and traces, at which nothing happens: a daemon with a control socket.
    Doors,
    /// A trace is recorded.
    Trace,
}

impl Observers {
    const ALL: [(Self, &str); 3] = [
        (Self::None, "rate"),
        (Self::Doors, "rate-doors"),
        (Self::Trace, "rate-traced"),
    ];

    fn machines(self, switch: &Arc<Switch>) -> [Machine; 2] {
        match self {
            Self::None => [1, 2].map(|number| machine(switch, number)),
            Self::Doors | Self::Trace => {
                let faults = Faults::new(vec!["nic1".to_owned(), "nic2".to_owned()]).unwrap();
                [1, 2].map(|number| faulty_machine(switch, number, &faults).0)
            }
        }
    }
}

/// Two guests with a connected queue pair each.
struct Link {
    nodes: [Node; 2],
    qps: [QueuePair; 2],
    regions: [Region; 2],
}

impl Link {
    fn new(service: u8, log_sq: u8) -> Self {
        Self::in_pages(service, log_sq, PAGE, Observers::None)
    }

    /// Two guests whose regions are in pages of `page` bytes.
    fn in_pages(service: u8, log_sq: u8, page: u64, observers: Observers) -> Self {
        let [first, second] = observers.machines(&Switch::new());
        let nodes = [Node::open(first, 1), Node::open(second, 2)];
        for node in &nodes {
            let mut register = PmtuReg::default();
            register.set_local_port(1);
            register.set_admin_mtu(PORT_MTU);
            node.hca
                .write_register(mlx5_test_driver::netdev::PMTU, &register)
                .unwrap();
        }
        let shape = Shape {
            log_sq,
            ..Shape::new(service)
        };
        let qps = nodes.each_ref().map(|node| QueuePair::create(node, shape).unwrap());
        let regions = nodes
            .each_ref()
            .map(|node| Region::in_pages(&node.hca, node.pd, REGION, Rights::ALL, page).unwrap());
        let how = Connection {
            mtu: MTU_4096,
            ..Connection::default()
        };
        connect((&nodes[0], &qps[0]), (&nodes[1], &qps[1]), &how);
        Self { nodes, qps, regions }
    }

    /// A request on the peer's region.
    fn request(&self, opcode: WqeOpcode, data: Data) -> Request {
        let peer = &self.regions[1];
        Request::remote(opcode, vec![data], peer.at(0), peer.key)
    }

    fn memory(&self, length: u32) -> Data {
        let own = &self.regions[0];
        Data::Memory((own.at(0), length, own.key))
    }

    /// Fills the ring with copies of a request, one in `signaled` signaled. Returns the basic blocks of a copy.
    fn fill(&mut self, request: &Request, signaled: u16) -> u16 {
        let silent = Request {
            flags: 0,
            ..request.clone()
        };
        let mut blocks: u16 = 1;
        let mut index: u16 = 0;
        while index < (1 << self.qps[0].shape.log_sq) / blocks {
            index += 1;
            let last = index.is_multiple_of(signaled);
            let before = self.qps[0].put(if last { request } else { &silent });
            blocks = self.qps[0].posted_sends().wrapping_sub(before);
            if last {
                self.qps[0].ring();
                self.complete();
            }
        }
        blocks
    }

    /// Posts a request and waits for its completion. Returns its basic blocks.
    fn fill_one(&mut self, request: &Request) -> u16 {
        let before = self.qps[0].put(request);
        let blocks = self.qps[0].posted_sends().wrapping_sub(before);
        self.qps[0].ring();
        self.complete();
        blocks
    }

    /// Reposts `count` requests of `blocks` basic blocks that are in the ring, and waits for `completions`.
    fn again(&mut self, count: u16, blocks: u16, completions: u16) {
        self.qps[0].repost(count, blocks);
        self.qps[0].ring();
        for _ in 0..completions {
            self.complete();
        }
    }

    fn complete(&mut self) {
        let cq = &mut self.qps[0].send_cq;
        let cqe = loop {
            if let Some(cqe) = cq.poll() {
                break cqe;
            }
            hint::spin_loop();
        };
        cq.release();
        assert_eq!(mlx5_test_driver::cq::error_of(&cqe), None);
    }

    fn close(self) {
        for ((node, qp), region) in self.nodes.into_iter().zip(self.qps).zip(self.regions) {
            qp.destroy(&node).unwrap();
            region.destroy(&node.hca).unwrap();
            node.close();
        }
    }
}

/// Many requests in flight, as in `ib_write_bw`, with and without observers.
fn rate(c: &mut Criterion) {
    for (observers, name) in Observers::ALL {
        rate_observed(c, observers, name);
    }
    set_flight_recorder(false);
}

fn rate_observed(c: &mut Criterion, observers: Observers, group: &str) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    let mut run = |name: &str, opcode: WqeOpcode, data: &dyn Fn(&Link) -> Data| {
        // Set up by the first sample: a benchmark that a filter leaves out costs nothing.
        let mut running = None;
        group.bench_function(name, |b| {
            let (link, blocks, worker) = running.get_or_insert_with(|| {
                set_flight_recorder(observers == Observers::Trace);
                let mut link = Link::in_pages(service::RC, LOG_SQ, PAGE, observers);
                let request = link.request(opcode, data(&link));
                let blocks = link.fill(&request, SIGNALED);
                (link, blocks, Worker::find())
            });
            b.iter_custom(|iterations| {
                // A quarter of the ring at a time.
                let batch = (1 << LOG_SQ) / *blocks / 4 / SIGNALED * SIGNALED;
                let rounds = iterations.div_ceil(batch.into());
                let time = worker.time(|| {
                    for _ in 0..rounds {
                        link.again(batch, *blocks, batch / SIGNALED);
                    }
                });
                scale(time, iterations, rounds * u64::from(batch))
            });
        });
        if let Some((link, ..)) = running {
            link.close();
        }
    };
    run("write-inline-64", WqeOpcode::RdmaWrite, &|_| {
        Data::Inline(vec![0x5a; 64])
    });
    run("write-64", WqeOpcode::RdmaWrite, &|link| link.memory(64));
    run("write-4096", WqeOpcode::RdmaWrite, &|link| link.memory(4096));
    run("read-64", WqeOpcode::RdmaRead, &|link| link.memory(64));
}

/// Scales the time of `done` iterations to `wanted` ones.
fn scale(time: Duration, wanted: u64, done: u64) -> Duration {
    Duration::from_secs_f64(time.as_secs_f64() * wanted as f64 / done as f64)
}

/// One request in flight: doorbell, message, completion.
fn latency(c: &mut Criterion) {
    let mut group = c.benchmark_group("latency");
    for (name, opcode) in [("write-64", WqeOpcode::RdmaWrite), ("read-64", WqeOpcode::RdmaRead)] {
        let mut running = None;
        group.bench_function(name, |b| {
            let (link, blocks) = running.get_or_insert_with(|| {
                let mut link = Link::new(service::RC, LOG_SQ_SHORT);
                let request = link.request(opcode, link.memory(64));
                let blocks = link.fill(&request, 1);
                (link, blocks)
            });
            b.iter(|| link.again(1, *blocks, 1));
        });
        if let Some((link, _)) = running {
            link.close();
        }
    }
}

/// Long messages, against memory copies of the same length between two guests: from the same buffer, which the caches
/// hold, and from a different buffer each time; in discontiguous 4 KiB pages, as in a program, and in 2 MiB pages.
fn bulk(c: &mut Criterion) {
    const LENGTH: u64 = 1 << 20;
    /// Messages in flight.
    const DEPTH: u16 = 4;
    let mut group = c.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(LENGTH));
    for (bytes, places) in [("same", 1), ("other", 1 << LOG_SQ_SHORT)] {
        for (pages, page) in [("4KiB", PAGE), ("2MiB", 2 << 20)] {
            let kind = format!("{bytes}-{pages}");
            let place = |index: u64| index % places * (REGION / places);
            for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead] {
                let mut running = None;
                group.bench_function(BenchmarkId::new(format!("{opcode:?}"), &kind), |b| {
                    let (link, blocks, worker) = running.get_or_insert_with(|| {
                        let mut link = Link::in_pages(service::RC, LOG_SQ_SHORT, page, Observers::None);
                        let (own, peer) = (&link.regions[0], &link.regions[1]);
                        let requests: Vec<Request> = (0..1 << LOG_SQ_SHORT)
                            .map(|index| {
                                let offset = place(index);
                                let data = Data::Memory((own.at(offset), LENGTH as u32, own.key));
                                Request::remote(opcode, vec![data], peer.at(offset), peer.key)
                            })
                            .collect();
                        let mut blocks = 1;
                        for request in &requests {
                            blocks = link.fill_one(request);
                        }
                        (link, blocks, Worker::find())
                    });
                    b.iter_custom(|iterations| {
                        let rounds = iterations.div_ceil(DEPTH.into());
                        let time = worker.time(|| (0..rounds).for_each(|_| link.again(DEPTH, *blocks, DEPTH)));
                        scale(time, iterations, rounds * u64::from(DEPTH))
                    });
                });
                if let Some((link, ..)) = running {
                    link.close();
                }
            }
            let mut buffers = None;
            let mut index = 0;
            group.bench_function(BenchmarkId::new("memcpy", &kind), |b| {
                let [from, to] =
                    buffers.get_or_insert_with(|| [(); 2].map(|()| Buffer::in_pages(&Memory::new(), REGION, page, 0)));
                b.iter(|| {
                    from.copy_to(to, place(index), LENGTH);
                    index += 1;
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = rate, latency, bulk
}
criterion_main!(benches);
