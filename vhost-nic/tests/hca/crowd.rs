//! Several guests that send to each other concurrently.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use mlx5_test_driver::wait::PATIENCE;

use crate::inspect::Inspect;
use crate::lan::Lan;

/// Duration of the traffic, and the number of frames that arrive at least.
const TIME: Duration = Duration::from_secs(1);
const ARRIVALS: u64 = 1000;
/// Offset of a frame's number, after the Ethernet header.
const NUMBER: usize = 14;

/// A frame with a number, from which its other bytes follow.
fn numbered(from: [u8; 6], to: [u8; 6], number: u64) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    let length = 60 + (number * 7919 % 1400) as usize;
    frame.extend((frame.len()..length).map(|at| (number as usize ^ at) as u8));
    frame
}

/// Traffic of a guest.
struct Tally {
    sent: u64,
    received: u64,
}

/// Sends to all others in turn and receives, until `stop`; then drains what is still in flight.
fn exchange(
    guest: &mut Netdev,
    macs: &[[u8; 6]],
    stop: &AtomicBool,
    sending: &AtomicU64,
    arrived: &AtomicU64,
) -> Tally {
    let own = guest.hca.machine.mac;
    let others: Vec<[u8; 6]> = macs.iter().copied().filter(|mac| *mac != own).collect();
    let buffer = guest.hca.machine.memory.allocate(2048);
    let mut next = vec![0_u64; others.len()];
    let mut expected = vec![0_u64; others.len()];
    let (mut sent, mut received) = (0_u64, 0);
    let mut busy = false;
    let mut stopped = false;
    let mut quiet = Instant::now();
    loop {
        if !busy && !stopped {
            if stop.load(Ordering::Relaxed) {
                stopped = true;
                sending.fetch_sub(1, Ordering::AcqRel);
            } else {
                let to = sent as usize % others.len();
                let frame = numbered(own, others[to], next[to]);
                next[to] += 1;
                buffer.write(0, &frame);
                guest.channels[0].sq.send(&Request {
                    data: &[(buffer.address(), frame.len() as u32)],
                    ..Default::default()
                });
                (busy, sent) = (true, sent + 1);
            }
        }
        if busy && guest.channels[0].send_cq.poll().is_some() {
            guest.channels[0].send_cq.release();
            busy = false;
        }
        match guest.poll() {
            Some((_, frame)) => {
                let frame = frame.frame;
                let from: [u8; 6] = frame[6..12].try_into().unwrap();
                let number = u64::from_be_bytes(frame[NUMBER..NUMBER + 8].try_into().unwrap());
                assert_eq!(frame, numbered(from, own, number), "no byte is another's");
                let sender = others.iter().position(|mac| *mac == from).unwrap();
                assert!(number >= expected[sender], "the frames of a sender come in order");
                expected[sender] = number + 1;
                received += 1;
                arrived.fetch_add(1, Ordering::Relaxed);
                quiet = Instant::now();
            }
            None if stopped && sending.load(Ordering::Acquire) == 0 && quiet.elapsed() > Duration::from_millis(200) => {
                return Tally { sent, received };
            }
            None => std::thread::yield_now(),
        }
    }
}

fn crowd(guests: u8) {
    let mut lan = Lan::new(
        guests,
        &Options {
            log_rq: 8,
            log_cq: 8,
            ..Options::default()
        },
    );
    let macs: Vec<[u8; 6]> = lan.guests.iter().map(|guest| guest.hca.machine.mac).collect();
    let (stop, sending) = (AtomicBool::new(false), AtomicU64::new(guests.into()));
    let arrived = AtomicU64::new(0);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let threads: Vec<_> = lan
            .guests
            .iter_mut()
            .map(|guest| scope.spawn(|| exchange(guest, &macs, &stop, &sending, &arrived)))
            .collect();
        let begun = Instant::now();
        // A busy machine takes longer.
        let is_enough = || begun.elapsed() > TIME && arrived.load(Ordering::Relaxed) > ARRIVALS;
        while !is_enough() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sent: u64 = tallies.iter().map(|tally| tally.sent).sum();
    let received: u64 = tallies.iter().map(|tally| tally.received).sum();
    // Frames to a station that the switch has not learned yet are flooded; other guests count them as unmatched.
    let lost: u64 = lan
        .guests
        .iter()
        .map(|guest| guest.hca.machine.nic().snapshot().port.out_of_buffer)
        .sum();
    println!("{guests} guests: {sent} frames sent, {received} received, {lost} without a buffer");
    assert_eq!(sent, received + lost, "every frame is somewhere");
    assert!(received > ARRIVALS);
    for (guest, tally) in lan.guests.iter().zip(&tallies) {
        let port = guest.hca.machine.nic().snapshot().port;
        assert_eq!(port.sent, tally.sent);
        assert_eq!(port.received, tally.received + port.out_of_buffer + port.unmatched);
    }
    lan.end();
}

#[test]
fn two_guests_exchange_frames_and_none_is_unaccounted_for() {
    crowd(2);
}

#[test]
fn four_guests_exchange_frames_and_none_is_unaccounted_for() {
    crowd(4);
}
