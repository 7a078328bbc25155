//! Completion queues that overrun: an error of the CQ, then of each send or receive queue that completes to it.

use mlx5_prm::queue_entry::EventType;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::Options;

use crate::frames::plain;
use crate::lan::{Lan, shut};

/// Type of a queue in an event (`MLX5_EVENT_QUEUE_TYPE_*`, driver.h).
const RQ: u8 = 1;
const SQ: u8 = 2;
/// State of a queue in error.
const ERROR: u8 = 3;

fn small() -> Options {
    Options {
        log_cq: 2,
        ..Options::default()
    }
}

/// Waits for the events of an overrun of a CQ, and of the end of a queue that completes there.
#[track_caller]
fn overruns(hca: &Hca, cq: u32, kind: u8, queue: u32) {
    let event = hca.wait_event(EventType::CqError);
    assert_eq!((&event.data[..4], event.data[11]), (&cq.to_be_bytes()[..], 1));
    let event = hca.wait_event(EventType::WqCatastrophicError);
    assert_eq!((event.data[20], &event.data[24..]), (kind, &queue.to_be_bytes()[..]));
}

#[test]
fn that_of_a_send_queue_ends_it() {
    let lan = Lan::new(1, &small());
    let mut guest = lan.guests.into_iter().next().unwrap();
    let channel = &mut guest.channels[0];
    for _ in 0..5 {
        channel.sq.nop();
    }
    overruns(&guest.hca, channel.send_cq.number, SQ, channel.sq.number);
    assert_eq!(channel.sq.query(&guest.hca).unwrap().state(), ERROR);
    for _ in 0..4 {
        channel.send_cq.wait();
    }
    channel.send_cq.release();
    channel.sq.nop();
    assert!(channel.send_cq.poll().is_none(), "a CQ in error takes no completions");
    shut(guest);
}

#[test]
fn that_of_a_receive_queue_ends_it() {
    let mut lan = Lan::new(2, &small());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    for _ in 0..5 {
        a.send(&frame);
    }
    let channel = &b.channels[0];
    overruns(&b.hca, channel.receive_cq.number, RQ, channel.rq.number);
    assert_eq!(channel.rq.query(&b.hca).unwrap().state(), ERROR);
    for _ in 0..4 {
        assert_eq!(b.receive().frame, frame);
    }
    a.send(&frame);
    b.expect_silence();
    lan.guests.into_iter().for_each(shut);
}
