//! How frames are given to the device.

use mlx5_prm::wqe::{EthernetSegment, WqeOpcode};

use crate::common::netdev::Options;
use crate::common::send_queue::Request;
use crate::frames::plain;
use crate::lan::Lan;

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
        // A ring of 64 blocks: entries of several cross its end.
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
    assert!(a.channels[0].send_cq.next().is_none());
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
