//! The PCIe account of send and receive queues (`docs/pcie-account.md`), and the model time of receive queues.

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cqe_session::MiniFormat;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use serde_json::{Value, json};
use vhost_nic::net::Switch;

use crate::cqe_compression::{self, Wire};
use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{Lan, shut};
use crate::nic::machine_with;

/// Frames of a measurement.
const N: u64 = 16;

fn each(count: u64, bytes: u64) -> Value {
    json!({"count": count, "bytes": count * bytes})
}

/// A queue in the tree of live objects.
fn queue(netdev: &Netdev, number: u32, kind: &str) -> Value {
    let snapshot = netdev.hca.machine.nic().snapshot();
    snapshot.hca["queues"][number.to_string()][kind].clone()
}

fn cqe_writes(netdev: &Netdev, number: u32) -> Value {
    let snapshot = netdev.hca.machine.nic().snapshot();
    snapshot.hca["cqs"][number.to_string()]["state"]["cqe_writes"].clone()
}

#[test]
fn a_frame_is_two_reads_and_at_the_receiver_a_read_and_two_writes() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 300);
    for _ in 0..N {
        a.send(&frame);
        assert_eq!(b.receive().frame, frame);
    }
    let channel = &a.channels[0];
    let sq = queue(a, channel.sq.number, "send");
    let pcie = json!({"doorbells": each(N, 8), "blue_flame": each(0, 0), "wqe_reads": each(N, 64)});
    assert_eq!(sq["pcie"], pcie);
    assert_eq!(
        sq["state"]["payload"],
        json!({"reads": each(N, 300), "writes": each(0, 0)})
    );
    assert_eq!(cqe_writes(a, channel.send_cq.number), each(N, 64));
    let channel = &b.channels[0];
    let rq = queue(b, channel.rq.number, "receive");
    let stride = 1 << rq["wq"]["log_stride"].as_u64().unwrap();
    assert_eq!(rq["state"]["wqe_reads"], each(N, stride));
    assert_eq!(
        rq["state"]["payload"],
        json!({"reads": each(0, 0), "writes": each(N, 300)})
    );
    assert_eq!(cqe_writes(b, channel.receive_cq.number), each(N, 64));
    lan.end();
}

#[test]
fn headers_in_the_wqe_are_not_read_and_a_list_has_one_doorbell() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 300);
    let (inline, rest) = frame.split_at(18);
    let (first, second) = rest.split_at(100);
    let blocks = [a.place(first), a.place(second)];
    let data = [(blocks[0].address(), 100), (blocks[1].address(), second.len() as u32)];
    let channel = &mut a.channels[0];
    let (mut counters, mut start) = (Vec::new(), [0; 8]);
    for _ in 0..N {
        let wqe = channel.sq.wqe(&Request {
            inline,
            data: &data,
            ..Request::default()
        });
        assert_eq!(wqe.len(), 80, "two basic blocks");
        start = *wqe.first_chunk().unwrap();
        counters.push(channel.sq.put(&wqe));
    }
    channel.sq.ring(start);
    for counter in counters {
        let cqe = channel.send_cq.wait();
        channel.sq.check(&cqe, WqeOpcode::Send, counter);
        channel.send_cq.release();
        assert_eq!(b.receive().frame, frame);
    }
    let sq = queue(a, a.channels[0].sq.number, "send");
    let pcie = json!({"doorbells": each(1, 8), "blue_flame": each(0, 0), "wqe_reads": each(1, N * 128)});
    assert_eq!(sq["pcie"], pcie);
    drop(blocks);
    let reads = json!({"count": 2 * N, "bytes": N * 282});
    assert_eq!(sq["state"]["payload"]["reads"], reads);
    lan.end();
}

#[test]
fn a_session_takes_the_time_of_one_write() {
    const ROUND_TRIP: Duration = Duration::from_nanos(1000);
    for compression in [None, Some(MiniFormat::Hash)] {
        let switch = Switch::new();
        let machine = machine_with(&switch, 1, |config| config.pcie_latency = ROUND_TRIP);
        let options = Options {
            compression,
            ..cqe_compression::options(MiniFormat::Hash)
        };
        let mut b = Netdev::open(&Arc::new(Hca::boot(&Arc::new(machine))), &options);
        let wire = Wire::at(&switch);
        let spent = |b: &Netdev| b.hca.machine.nic().snapshot().pcie_latency_ns / (ROUND_TRIP.as_nanos() as u64 / 2);
        // Completions, and the batches that a CQ writes them in if it compresses. Two are no session, and one batch.
        for (frames, batches) in [(1, 1), (2, 1), (20, 1), (70, 2)] {
            let before = spent(&b);
            wire.send(&cqe_compression::flow(&b, frames as usize));
            (0..frames).for_each(|_| drop(b.receive()));
            // The read of a WQE takes a round trip, the write of a frame or of completions half of one.
            let completions = if compression.is_some() { batches } else { frames };
            assert_eq!(
                spent(&b) - before,
                3 * frames + completions,
                "{frames}, {compression:?}"
            );
        }
        shut(b);
    }
}
