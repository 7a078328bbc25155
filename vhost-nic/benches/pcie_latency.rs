//! The time of a message with `--pcie-latency`, by the way in which it is posted: two guests in memory.
//!
//! Prints the data of the plot in docs/pcie-account.md:
//! `cargo bench -p vhost-nic --bench pcie_latency > docs/pcie-account.tsv`.

#[path = "../tests/common/nic.rs"]
#[expect(dead_code, reason = "every machine here has a latency of its own")]
mod nic;

use std::hint;
use std::time::{Duration, Instant};

use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use vhost_nic::net::Switch;

use crate::nic::machine_with;

/// Round trips in nanoseconds.
const ROUND_TRIPS: [u64; 2] = [0, 20_000];
/// Messages of a measurement, and those before it.
const MESSAGES: usize = 2000;
const WARM_UP: usize = 20;
/// Messages of a list.
const LIST: usize = 16;
/// Time limit for BlueFlame that the driver meets on a busy machine, too.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
/// Bytes of each guest's region.
const REGION: u64 = 4096;

/// A way to post messages.
#[derive(Clone, Copy)]
struct Method {
    name: &'static str,
    opcode: WqeOpcode,
    inline: bool,
    blue_flame: bool,
    list: usize,
    /// `cs_req` and `cs_res`.
    scatter: u8,
}

const WRITE: Method = Method {
    name: "write",
    opcode: WqeOpcode::RdmaWrite,
    inline: false,
    blue_flame: false,
    list: 1,
    scatter: 0,
};

const METHODS: [Method; 9] = [
    WRITE,
    Method {
        name: "write, inline",
        inline: true,
        ..WRITE
    },
    Method {
        name: "write, BlueFlame",
        blue_flame: true,
        ..WRITE
    },
    Method {
        name: "write, inline, BlueFlame",
        inline: true,
        blue_flame: true,
        ..WRITE
    },
    Method {
        name: "write, inline, list of 16",
        inline: true,
        list: LIST,
        ..WRITE
    },
    Method {
        name: "send",
        opcode: WqeOpcode::Send,
        ..WRITE
    },
    Method {
        name: "send, scatter to CQE",
        opcode: WqeOpcode::Send,
        scatter: 1,
        ..WRITE
    },
    Method {
        name: "read",
        opcode: WqeOpcode::RdmaRead,
        ..WRITE
    },
    Method {
        name: "read, scatter to CQE",
        opcode: WqeOpcode::RdmaRead,
        scatter: 1,
        ..WRITE
    },
];

/// Two guests with a connected queue pair each.
struct Link {
    nodes: [Node; 2],
    qps: [QueuePair; 2],
    regions: [Region; 2],
    messages: usize,
}

impl Link {
    fn new(method: &Method, round_trip: Duration) -> Self {
        let switch = Switch::new();
        let nodes = [1, 2].map(|number| {
            let machine = machine_with(&switch, number, |config| {
                config.pcie_latency = round_trip;
                config.blue_flame = method.blue_flame.then_some(FOR_EVER);
            });
            Node::open(machine, number)
        });
        let shape = Shape {
            cs_req: method.scatter,
            cs_res: method.scatter,
            ..Shape::new(service::RC)
        };
        let qps = nodes.each_ref().map(|node| QueuePair::create(node, shape).unwrap());
        connect((&nodes[0], &qps[0]), (&nodes[1], &qps[1]), &Connection::default());
        let regions = nodes.each_ref().map(|node| node.region(REGION));
        Self {
            nodes,
            qps,
            regions,
            messages: 0,
        }
    }

    /// Posts a list of messages and waits until they are complete. Returns the time per message.
    fn post(&mut self, method: &Method) -> Duration {
        let [own, peer] = &self.regions;
        let data = match method.inline {
            true => Data::Inline(vec![0x5a; 28]),
            false => Data::Memory((own.at(0), 28, own.key)),
        };
        let mut request = Request::remote(method.opcode, vec![data], peer.at(0), peer.key);
        if method.opcode == WqeOpcode::Send {
            request.remote = None;
            self.qps[1].receive(&[(peer.at(0), 64, peer.key)]);
        }
        let mut wqe = Vec::new();
        for _ in 0..method.list {
            wqe = self.qps[0].wqe(&request);
            self.qps[0].put_bytes(&wqe);
        }
        self.messages += 1;
        let begin = Instant::now();
        match method.blue_flame {
            true => self.qps[0].ring_with(self.messages as u64 & 1, &wqe),
            false => self.qps[0].ring(),
        }
        for _ in 0..method.list {
            complete(|| self.qps[0].send_cq.poll());
        }
        let time = begin.elapsed();
        self.qps[0].send_cq.release();
        if method.opcode == WqeOpcode::Send {
            complete(|| self.qps[1].receive_cq.poll());
            self.qps[1].receive_cq.release();
        }
        time / method.list as u32
    }

    fn close(self) {
        for ((node, qp), region) in self.nodes.into_iter().zip(self.qps).zip(self.regions) {
            qp.destroy(&node).unwrap();
            region.destroy(&node.hca).unwrap();
            node.close();
        }
    }
}

fn complete(mut poll: impl FnMut() -> Option<Cqe>) {
    while poll().is_none() {
        hint::spin_loop();
    }
}

fn main() {
    let mut runs = Vec::new();
    for round_trip in ROUND_TRIPS {
        for method in METHODS {
            let link = Link::new(&method, Duration::from_nanos(round_trip));
            runs.push((round_trip, method, link, Vec::new()));
        }
    }
    // In turns, as a shared host is slower at times.
    for message in 0..WARM_UP + MESSAGES {
        for (_, method, link, times) in &mut runs {
            let time = link.post(method);
            if message >= WARM_UP {
                times.push(time);
            }
        }
    }
    println!("place\tround_trip_ns\tmethod\ttime_us");
    for (round_trip, method, link, mut times) in runs {
        times.sort_unstable();
        // The first decile: other work on the host has no part in it.
        let time = times[times.len() / 10].as_secs_f64() * 1e6;
        println!("in memory\t{round_trip}\t{}\t{time:.2}", method.name);
        link.close();
    }
}
