//! Sessions that end early: faults, errors, resets, queues that are destroyed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mlx5_prm::queue_entry::{Cqe, Syndrome};
use mlx5_test_driver::cq::{CompletionQueue, error_of};
use mlx5_test_driver::cqe_session::{Compressed, MiniFormat};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::Netdev;
use mlx5_test_driver::rq::segment;
use mlx5_test_driver::sq::state;
use mlx5_test_driver::wait::{await_some, eventually};
use vhost_daemon::finding::Kind;
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::net::Switch;
use zerocopy::FromBytes;

use super::{Wire, compressed, ends, flow, options, receiver};
use crate::faults::Faulty;
use crate::found::found;
use crate::inspect::Inspect;
use crate::lan::shut;
use crate::life::Ending;
use crate::nic::machine;

/// A guest whose doors take faults, and a sender of bursts.
fn faulty() -> (Faulty, Netdev, Wire) {
    let switch = Switch::new();
    let faulty = Faulty::at(&switch);
    let b = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &options(MiniFormat::Hash));
    (faulty, b, Wire::at(&switch))
}

/// Consumes completions, and returns their WQE counters and byte counts.
fn taken(cq: &mut CompletionQueue) -> Vec<(u16, u32)> {
    std::iter::from_fn(|| cq.poll())
        .map(|cqe| (cqe.wqe_counter.get(), cqe.byte_count.get()))
        .collect()
}

fn expected(frames: &[Vec<u8>], which: impl IntoIterator<Item = usize>) -> Vec<(u16, u32)> {
    let of = |index: usize| (index as u16, frames[index].len() as u32);
    which.into_iter().map(of).collect()
}

#[test]
fn a_fault_strikes_one_completion_of_a_burst() {
    let rule = |kind: &str| format!("[[fault]]\nkind = \"{kind}\nskip = 5\ncount = 1");
    // Lost: the sessions are those before and after.
    let (faulty_guest, mut b, wire) = faulty();
    let frames = flow(&b, 10);
    faulty_guest.apply(&rule("cqe_lost\""));
    wire.send(&frames);
    let cq = &mut b.channels[0].receive_cq;
    assert_eq!(taken(cq), expected(&frames, (0..5).chain(6..10)));
    assert_eq!(
        cq.compressed(),
        Compressed {
            sessions: 2,
            completions: 9
        }
    );
    shut(b);

    // Late: behind all others.
    let (faulty_guest, mut b, wire) = faulty();
    faulty_guest.apply(&rule("cqe_late\"\ndelay = \"5ms\""));
    wire.send(&frames);
    let cq = &mut b.channels[0].receive_cq;
    let mut found = Vec::new();
    eventually("all completions", || {
        found.extend(taken(cq));
        found.len() == 10
    });
    assert_eq!(found, expected(&frames, (0..5).chain(6..10).chain([5])));
    assert_eq!(
        cq.compressed(),
        Compressed {
            sessions: 2,
            completions: 9
        }
    );
    shut(b);

    // An error: behind a session, and the queue ends.
    let (faulty_guest, mut b, wire) = faulty();
    faulty_guest.apply(&rule("cqe_error\"\nsyndrome = 4"));
    wire.send(&frames);
    let cq = &mut b.channels[0].receive_cq;
    for index in 0..5 {
        assert_eq!(cq.poll().expect("a completion").wqe_counter.get(), index);
    }
    assert_eq!(error_of(&cq.poll().expect("the error")), Some((4, 5)));
    assert!(cq.poll().is_none());
    assert_eq!(
        cq.compressed(),
        Compressed {
            sessions: 1,
            completions: 5
        }
    );
    shut(b);

    // An overrun: what was ready before it is there.
    let (faulty_guest, mut b, wire) = faulty();
    faulty_guest.apply(&rule("cq_overrun\""));
    wire.send(&frames);
    ends(&b, 1);
    let cq = &mut b.channels[0].receive_cq;
    assert_eq!(taken(cq), expected(&frames, 0..5));
    shut(b);
}

#[test]
fn a_session_that_cannot_be_written_ends_the_queue() {
    // The first write is an array, the second one the title.
    for skip in [0, 1] {
        let (faulty_guest, mut b, wire) = faulty();
        let frames = flow(&b, 6);
        faulty_guest.apply(&format!(
            "[[fault]]\nkind = \"dma_failed\"\npurpose = \"cqe\"\nskip = {skip}\ncount = 1"
        ));
        wire.send(&frames);
        assert_eq!(faulty_guest.strikes(), 1);
        // The queue finds out with its next completion.
        wire.send(&frames[..1]);
        ends(&b, 2);
        assert!(b.channels[0].receive_cq.poll().is_none(), "a part of a session");
        let findings = found(&b.hca.machine);
        let lost: Vec<_> = findings
            .iter()
            .filter(|found| found.kind == Finding::LostCqe.name())
            .collect();
        assert_eq!(lost.len(), 1);
        let title = Cqe::read_from_bytes(&lost[0].evidence).unwrap();
        assert_eq!(title.byte_count.get(), 6);
        shut(b);
    }
}

#[test]
fn an_error_of_a_receive_wqe_ends_the_session() {
    let (mut b, wire) = receiver(&options(MiniFormat::Hash));
    let frames = flow(&b, 10);
    let rq = &b.channels[0].rq;
    rq.write_wqe(4, &[segment(rq.buffer_address(4), 2048, 0xdead << 8)]);
    wire.send(&frames);
    let cq = &mut b.channels[0].receive_cq;
    for index in 0..4 {
        assert_eq!(cq.poll().expect("a completion").wqe_counter.get(), index);
    }
    let error = error_of(&cq.poll().expect("the error"));
    assert_eq!(error, Some((Syndrome::LocalProtection as u8, 4)));
    assert!(cq.poll().is_none());
    assert_eq!(
        cq.compressed(),
        Compressed {
            sessions: 1,
            completions: 4
        }
    );
    shut(b);
}

#[test]
fn a_reset_of_the_receive_queue_is_the_last_of_its_completions() {
    let (mut b, wire) = receiver(&options(MiniFormat::Hash));
    let frames = flow(&b, 32);
    let hca = Arc::clone(&b.hca);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                wire.send(&frames);
                sent.fetch_add(1, Ordering::Release);
            }
        });
        let _ending = Ending(&stop);
        let channel = &mut b.channels[0];
        for _ in 0..300 {
            await_some("a completion", || channel.receive_cq.poll());
            channel.rq.modify(&hca, state::READY, state::RESET).unwrap();
            let producer = |cq: &CompletionQueue| cq.query(&hca).unwrap().producer_counter();
            let before = producer(&channel.receive_cq);
            let bursts = sent.load(Ordering::Acquire);
            eventually("the end of the burst", || sent.load(Ordering::Acquire) > bursts + 1);
            assert_eq!(producer(&channel.receive_cq), before, "a completion after the reset");
            while channel.receive_cq.poll().is_some() {}
            channel.receive_cq.release();
            channel.rq.forget();
            channel.rq.modify(&hca, state::RESET, state::READY).unwrap();
            channel.rq.fill();
        }
    });
    while b.channels[0].receive_cq.poll().is_some() {}
    assert!(compressed(&b).sessions > 0);
    drop(hca);
    shut(b);
}

#[test]
fn no_completion_is_written_after_the_queues_are_destroyed() {
    let switch = Switch::new();
    let machine = Arc::new(machine(&switch, 1));
    let wire = Wire::at(&switch);
    for _ in 0..60 {
        let hca = Arc::new(Hca::boot(&machine));
        let mut b = Netdev::open(&hca, &options(MiniFormat::Hash));
        let frames = flow(&b, 200);
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    wire.send(&frames);
                    sent.fetch_add(1, Ordering::Release);
                }
            });
            let _ending = Ending(&stop);
            await_some("a completion", || b.channels[0].receive_cq.poll());
            b.close();
            let completions = || machine.nic().snapshot().completions;
            let before = completions();
            let bursts = sent.load(Ordering::Acquire);
            eventually("the end of the burst", || sent.load(Ordering::Acquire) > bursts + 1);
            assert_eq!(completions(), before, "a completion of a queue that is gone");
        });
        Arc::into_inner(hca).unwrap().shutdown();
    }
}

#[test]
fn sessions_are_in_the_buffer_before_a_resize() {
    let (mut b, wire) = receiver(&options(MiniFormat::Checksum));
    let hca = Arc::clone(&b.hca);
    let frames = flow(&b, 20);
    for log_size in [6, 9, 5] {
        wire.send(&frames);
        let rest = b.channels[0].receive_cq.resize(&hca, log_size).unwrap();
        let lengths: Vec<usize> = rest.iter().map(|cqe| cqe.byte_count.get() as usize).collect();
        let sent: Vec<usize> = frames.iter().map(Vec::len).collect();
        assert_eq!(lengths, sent);
        for (cqe, frame) in rest.iter().zip(&frames) {
            assert_eq!(b.channels[0].rq.take(cqe), *frame);
        }
        b.channels[0].receive_cq.release();
        b.channels[0].rq.fill();
        wire.send(&frames);
        for frame in &frames {
            assert_eq!(b.poll().expect("a completion").1.frame, *frame);
        }
    }
    assert_eq!(
        compressed(&b),
        Compressed {
            sessions: 6,
            completions: 120
        }
    );
    drop(hca);
    shut(b);
}
