//! Transmit: WQEs and doorbells.

use std::sync::{Arc, mpsc};

use mlx5_prm::wqe::{EthernetSegment, WqeOpcode};
use mlx5_test_driver::netdev::Options;
use mlx5_test_driver::sq::Request;
use parking_lot::Mutex;
use vhost_nic::net::{Burst, Destination, FrameNumber, PortTap, Switch, Tap};

use crate::frames::plain;
use crate::lan::{Lan, guest, shut};

#[test]
fn headers_in_the_entry_come_before_the_data() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 300);
    for inline in (0..=66).chain([128, 200]) {
        let (first, rest) = frame.split_at(inline);
        a.send_with(
            rest,
            Request {
                inline: first,
                ..Request::default()
            },
        );
        assert_eq!(b.receive().frame, frame, "{inline} bytes in the entry");
    }
    lan.end();
}

/// The mean path delay of IEEE 1588, 11.3, which does not depend on the difference of the clocks.
#[test]
fn a_frame_leaves_before_it_arrives() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let [there, back] = [(&a, &b), (&b, &a)].map(|(from, to)| plain(from.hca.machine.mac, to.hca.machine.mac, 300));
    for _ in 0..20 {
        let left = a.send_with(&there, Request::default()).timestamp.get() as i64;
        let arrived = b.receive().cqe.timestamp.get() as i64;
        let left_again = b.send_with(&back, Request::default()).timestamp.get() as i64;
        let returned = a.receive().cqe.timestamp.get() as i64;
        let delay = (arrived - left) + (returned - left_again);
        assert!(delay > 0, "{left} {arrived} {left_again} {returned}");
    }
    lan.end();
}

#[test]
fn a_frame_may_be_in_many_places() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 1400);
    for pieces in [2, 3, 4, 5, 13, 20] {
        let blocks: Vec<_> = frame
            .chunks(1400_usize.div_ceil(pieces))
            .map(|part| (a.place(part), part.len()))
            .collect();
        let data: Vec<_> = blocks
            .iter()
            .map(|(block, length)| (block.address(), *length as u32))
            .collect();
        let channel = &mut a.channels[0];
        // A ring of 64 basic blocks: WQEs of several blocks wrap around.
        for _ in 0..30 {
            let counter = channel.sq.send(&Request {
                data: &data,
                ..Request::default()
            });
            channel.sq.check(&channel.send_cq.wait(), WqeOpcode::Send, counter);
            channel.send_cq.release();
            assert_eq!(b.receive().frame, frame, "{pieces} pieces");
        }
    }
    lan.end();
}

#[test]
fn a_nop_completes() {
    let mut lan = Lan::new(1, &Options::default());
    let channel = &mut lan.guests[0].channels[0];
    for _ in 0..200 {
        let counter = channel.sq.nop();
        channel.sq.check(&channel.send_cq.wait(), WqeOpcode::Nop, counter);
        channel.send_cq.release();
    }
    lan.end();
}

#[test]
fn one_doorbell_is_for_all_that_is_posted() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let (from, to) = (a.hca.machine.mac, b.hca.machine.mac);
    let blocks: Vec<_> = (0..20).map(|number| a.place(&plain(from, to, 60 + number))).collect();
    let channel = &mut a.channels[0];
    let mut last = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        let data = [(block.address(), 60 + number as u32)];
        last = channel.sq.wqe(&Request {
            data: &data,
            silent: number != 19,
            ..Request::default()
        });
        channel.sq.put(&last);
    }
    channel.sq.ring(*last.first_chunk().unwrap());
    let cqe = channel.send_cq.wait();
    assert_eq!(cqe.wqe_counter.get(), 19, "only the last one completes");
    for number in 0..20 {
        assert_eq!(b.receive().frame, plain(from, to, 60 + number));
    }
    assert!(a.channels[0].send_cq.poll().is_none());
    drop(blocks);
    lan.end();
}

#[test]
fn the_device_inserts_a_tag() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    a.send_with(
        &frame,
        Request {
            vlan: Some(0xe00a),
            ..Request::default()
        },
    );
    let expected = [&frame[..12], &[0x81, 0x00, 0xe0, 0x0a], &frame[12..]].concat();
    assert_eq!(b.receive().frame, expected);
    lan.end();
}

#[test]
fn checksum_flags_of_frames_without_checksums_change_nothing() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    let checksums = EthernetSegment::L3_CSUM | EthernetSegment::L4_CSUM;
    a.send_with(
        &frame,
        Request {
            checksums,
            ..Request::default()
        },
    );
    assert_eq!(b.receive().frame, frame);
    lan.end();
}

/// Keeps the last byte of each frame; blocks on the first one.
struct Order {
    wait: Mutex<Option<mpsc::Receiver<()>>>,
    seen: Mutex<Vec<u8>>,
}

impl Tap for Order {
    fn frames(&self, _: &PortTap, _: Destination<'_>, _: FrameNumber, burst: &Burst<'_>) {
        if let Some(wait) = self.wait.lock().take() {
            wait.recv().unwrap();
        }
        burst.each(|frame| self.seen.lock().extend(frame.to_bytes().unwrap().last()));
    }
}

#[test]
fn queues_have_turns() {
    const MANY: usize = 200;
    const MUCH: u8 = 1;
    const LITTLE: u8 = 2;
    let switch = Switch::new();
    let options = Options {
        channels: 2,
        log_sq: 8,
        ..Options::default()
    };
    let mut guest = guest(&switch, 1, &options);
    let (go, wait) = mpsc::channel();
    let order = Arc::new(Order {
        wait: Mutex::new(Some(wait)),
        seen: Mutex::default(),
    });
    let tap: Arc<dyn Tap> = order.clone();
    switch.add_tap(tap.clone());
    let places = [MUCH, LITTLE].map(|mark| {
        let mut frame = plain(guest.hca.machine.mac, [2, 0, 0, 0, 0, 9], 100);
        *frame.last_mut().unwrap() = mark;
        guest.place(&frame)
    });
    for (channel, place, count) in [(0, &places[0], MANY), (1, &places[1], 1)] {
        let sq = &mut guest.channels[channel].sq;
        let data = [(place.address(), 100)];
        let mut wqe = Vec::new();
        for number in 1..=count {
            wqe = sq.wqe(&Request {
                data: &data,
                silent: number < count,
                ..Request::default()
            });
            sq.put(&wqe);
        }
        sq.ring(*wqe.first_chunk().unwrap());
    }
    go.send(()).unwrap();
    for channel in &mut guest.channels {
        channel.send_cq.wait();
        channel.send_cq.release();
    }
    switch.remove_tap(&tap);
    let seen = order.seen.lock().clone();
    assert_eq!(seen.len(), MANY + 1);
    let at = seen.iter().position(|mark| *mark == LITTLE).unwrap();
    assert!(at <= MANY / 2, "{at} frames went first");
    drop(places);
    shut(guest);
}
