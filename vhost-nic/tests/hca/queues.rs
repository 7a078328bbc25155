//! Completion and event queues: arming, resize, interrupts.

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::queue_entry::EventType;
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::cq::{CompletionQueue, Shape};
use mlx5_test_driver::netdev::{Channel, Netdev, Options};
use mlx5_test_driver::sq::SendQueue;
use mlx5_test_driver::wait::{BRIEF, PATIENCE, await_some, eventually};
use zerocopy::IntoBytes;

use crate::frames::plain;
use crate::lan::Lan;

/// Vector of the first channel.
const VECTOR: u16 = 1;

/// Waits for an interrupt of the first channel after the `seen` first ones, and for its event.
#[track_caller]
fn wait_event(guest: &mut Netdev, seen: u64) -> u32 {
    assert!(
        guest.hca.machine.interrupts.wait(VECTOR, seen, PATIENCE),
        "the interrupt comes"
    );
    let events = &mut guest.channels[0].events;
    let event = await_some("an event", || events.poll());
    assert_eq!(event.event_type, EventType::Completion as u8);
    events.update(true);
    u32::from_be_bytes(*event.data[24..].first_chunk().unwrap())
}

fn interrupts(guest: &Netdev) -> u64 {
    guest.hca.machine.interrupts.count(VECTOR)
}

fn nop(channel: &mut Channel) {
    channel.sq.nop();
}

#[test]
fn an_armed_queue_interrupts_once() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = &mut lan.guests[0];
    for _ in 0..10 {
        let seen = interrupts(guest);
        let hca = Arc::clone(&guest.hca);
        guest.channels[0].send_cq.arm(&hca, false);
        nop(&mut guest.channels[0]);
        let number = guest.channels[0].send_cq.number;
        assert_eq!(wait_event(guest, seen), number);
        nop(&mut guest.channels[0]);
        let channel = &mut guest.channels[0];
        channel.send_cq.event();
        channel.send_cq.wait();
        channel.send_cq.wait();
        channel.send_cq.release();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(
            interrupts(guest),
            seen + 1,
            "no interrupt was requested for the second one"
        );
    }
    lan.end();
}

#[test]
fn a_queue_that_is_armed_late_interrupts_at_once() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = &mut lan.guests[0];
    nop(&mut guest.channels[0]);
    eventually("a completion", || {
        guest.channels[0].send_cq.query(&guest.hca).unwrap().producer_counter() == 1
    });
    let seen = interrupts(guest);
    let hca = Arc::clone(&guest.hca);
    // The consumer index says that the completion has not been consumed.
    guest.channels[0].send_cq.arm(&hca, false);
    wait_event(guest, seen);
    guest.channels[0].send_cq.event();
    guest.channels[0].send_cq.wait();
    guest.channels[0].send_cq.release();
    guest.channels[0].send_cq.arm(&hca, false);
    std::thread::sleep(BRIEF);
    assert_eq!(interrupts(guest), seen + 1, "all is read");
    drop(hca);
    lan.end();
}

#[test]
fn solicited_arms_wait_for_errors() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = &mut lan.guests[0];
    let hca = Arc::clone(&guest.hca);
    let seen = interrupts(guest);
    guest.channels[0].send_cq.arm(&hca, true);
    drop(hca);
    for _ in 0..5 {
        nop(&mut guest.channels[0]);
        guest.channels[0].send_cq.wait();
    }
    guest.channels[0].send_cq.release();
    std::thread::sleep(BRIEF);
    assert_eq!(interrupts(guest), seen);
    let bad: ControlSegment = guest.channels[0].sq.control(0xff, 16, false);
    guest.channels[0].sq.post(bad.as_bytes());
    wait_event(guest, seen);
    lan.guests.into_iter().for_each(crate::lan::shut);
}

#[test]
fn a_received_frame_interrupts() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 60);
    for _ in 0..10 {
        let seen = interrupts(b);
        let hca = Arc::clone(&b.hca);
        b.channels[0].receive_cq.arm(&hca, false);
        a.send(&frame);
        let number = b.channels[0].receive_cq.number;
        assert_eq!(wait_event(b, seen), number);
        b.channels[0].receive_cq.event();
        assert_eq!(b.receive().frame, frame);
    }
    lan.end();
}

#[test]
fn an_event_queue_that_is_not_armed_does_not_interrupt() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = &mut lan.guests[0];
    let hca = Arc::clone(&guest.hca);
    let channel = &mut guest.channels[0];
    channel.send_cq.arm(&hca, false);
    nop(channel);
    let event = await_some("an event", || channel.events.poll());
    assert_eq!(event.event_type, EventType::Completion as u8);
    channel.events.update(false);
    channel.send_cq.wait();
    channel.send_cq.release();
    let seen = hca.machine.interrupts.count(VECTOR);
    channel.send_cq.arm(&hca, false);
    nop(channel);
    std::thread::sleep(BRIEF);
    assert_eq!(hca.machine.interrupts.count(VECTOR), seen);
    channel.events.update(true);
    assert!(
        hca.machine.interrupts.wait(VECTOR, seen, PATIENCE),
        "armed late, it interrupts at once"
    );
    drop(hca);
    lan.end();
}

#[test]
fn events_go_on_when_their_queue_wraps() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = &mut lan.guests[0];
    let hca = Arc::clone(&guest.hca);
    // The event queue has 64 entries.
    for _ in 0..200 {
        let seen = interrupts(guest);
        let channel = &mut guest.channels[0];
        channel.send_cq.arm(&hca, false);
        nop(channel);
        wait_event(guest, seen);
        let channel = &mut guest.channels[0];
        channel.send_cq.event();
        channel.send_cq.wait();
        channel.send_cq.release();
    }
    drop(hca);
    lan.end();
}

#[test]
fn a_resized_queue_goes_on_where_it_was() {
    for large_cqes in [false, true] {
        let mut lan = Lan::new(
            1,
            &Options {
                log_cq: 3,
                large_cqes,
                ..Options::default()
            },
        );
        let guest = &mut lan.guests[0];
        let channel = &mut guest.channels[0];
        let mut expected = 0;
        for log_size in [5, 2, 4, 3, 8] {
            for _ in 0..2 {
                nop(channel);
            }
            // They are in the old buffer before the resize.
            eventually("completions", || {
                u32::from(channel.sq.producer()) == channel.sq.query(&guest.hca).unwrap().wq().hw_counter()
            });
            let rest = channel.send_cq.resize(&guest.hca, log_size).unwrap();
            channel.send_cq.release();
            assert_eq!(rest.len(), 2);
            for cqe in rest {
                channel.sq.check(&cqe, WqeOpcode::Nop, expected);
                expected += 1;
            }
            for _ in 0..50 {
                nop(channel);
                channel.sq.check(&channel.send_cq.wait(), WqeOpcode::Nop, expected);
                channel.send_cq.release();
                expected += 1;
            }
        }
        lan.end();
    }
}

#[test]
fn a_queue_that_may_be_overrun_goes_on() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = &mut lan.guests[0];
    let hca = Arc::clone(&guest.hca);
    let shape = Shape {
        overrun_ignored: true,
        ..Shape::plain(2)
    };
    let cq = CompletionQueue::create(&hca, guest.channels[0].events.number, shape).unwrap();
    let mut sq = SendQueue::create(&hca, &cq, None, guest.pd, guest.key, 6).unwrap();
    sq.modify(&hca, 0, 1).unwrap();
    for _ in 0..11 {
        sq.nop();
    }
    eventually("completions", || cq.query(&hca).unwrap().producer_counter() == 11);
    sq.destroy(&hca).unwrap();
    cq.destroy(&hca).unwrap();
    drop((sq, cq, hca));
    lan.end();
}
