//! Ethernet between two guests of one daemon: CPU time of the NIC's thread that sends for one and receives for the
//! other, per frame, or per packet that it segments.

#[path = "../tests/common/nic.rs"]
mod nic;
#[path = "common/worker.rs"]
mod worker;

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::cqe_session::MiniFormat;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use vhost_nic::net::Switch;

use crate::nic::machine;
use crate::worker::Worker;

/// Bytes of the headers of a TCP segment.
const HEADERS: usize = 54;

/// WQEs with one doorbell, and the frames that they become.
#[derive(Clone, Copy)]
struct Load {
    wqes: usize,
    bytes: usize,
    mss: u16,
    frames: usize,
}

struct Link {
    a: Netdev,
    b: Netdev,
    worker: Worker,
}

impl Link {
    fn new(options: &Options) -> Self {
        let switch = Switch::new();
        let [a, b] =
            [1, 2].map(|number| Netdev::open(&Arc::new(Hca::boot(&Arc::new(machine(&switch, number)))), options));
        Self {
            a,
            b,
            worker: Worker::find(),
        }
    }

    fn packet(&self, bytes: usize) -> Vec<u8> {
        let mut packet = vec![0x5a; bytes];
        packet[..6].copy_from_slice(&self.b.hca.machine.mac);
        packet[6..12].copy_from_slice(&self.a.hca.machine.mac);
        packet[12..14].copy_from_slice(&[8, 0]);
        let [high, low] = (bytes.min(1 << 15) as u16 - 14).to_be_bytes();
        packet[14..34].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet[46..48].copy_from_slice(&[0x50, 0x10]);
        packet
    }

    /// CPU time of `rounds` doorbells.
    fn time(&mut self, load: Load, rounds: u64) -> Duration {
        let block = self.a.place(&self.packet(load.bytes));
        let data = [(block.address(), load.bytes as u32)];
        let (a, b) = (&mut self.a.channels[0], &mut self.b);
        self.worker.time(|| {
            for _ in 0..rounds {
                for index in 1..=load.wqes {
                    let wqe = a.sq.wqe(&Request {
                        data: &data,
                        mss: load.mss,
                        checksums: EthernetSegment::L3_CSUM | EthernetSegment::L4_CSUM,
                        silent: index < load.wqes,
                        ..Request::default()
                    });
                    a.sq.put(&wqe);
                    if index == load.wqes {
                        a.sq.ring(*wqe.first_chunk().unwrap());
                    }
                }
                a.send_cq.wait();
                a.send_cq.release();
                (0..load.frames).for_each(|_| drop(b.receive()));
            }
        })
    }
}

fn ethernet(c: &mut Criterion) {
    let frames = |wqes, bytes| Load {
        wqes,
        bytes,
        mss: 0,
        frames: wqes,
    };
    let segments = |bytes: usize, mss: u16| Load {
        wqes: 1,
        bytes,
        mss,
        frames: (bytes - HEADERS).div_ceil(mss.into()),
    };
    let plain = [
        ("frame-64", frames(32, 64), None),
        ("frame-1500", frames(32, 1500), None),
        ("packet-64-alone", frames(1, 64), None),
        ("packet-60000-by-1448", segments(60_000, 1448), None),
        ("packet-4000-by-1448", segments(4000, 1448), None),
    ];
    let compressed = [(
        "packet-60000-by-1448-compressed",
        segments(60_000, 1448),
        Some(MiniFormat::Checksum),
    )];
    let mut group = c.benchmark_group("ethernet");
    for (name, load, compression) in plain.into_iter().chain(compressed) {
        group.throughput(Throughput::Elements(load.wqes as u64));
        let mut running = None;
        group.bench_function(name, |b| {
            let link = running.get_or_insert_with(|| {
                Link::new(&Options {
                    log_cq: 8,
                    log_rq: 8,
                    compression,
                    ..Options::default()
                })
            });
            b.iter_custom(|rounds| link.time(load, rounds));
        });
        if let Some(Link { a, b, .. }) = running {
            [a, b].into_iter().for_each(Netdev::shut_down);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = ethernet
}
criterion_main!(benches);
