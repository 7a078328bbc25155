//! Receive: frames, and the fields of their completions.

use mlx5_prm::port_counters::{Eth2863CntrsGrpDataLayout, PpcntReg};
use mlx5_prm::queue_entry::Cqe;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::{self, state};
use mlx5_test_driver::wait::eventually;
use zerocopy::FromBytes;

use crate::frames::{Packet, network_offset, plain, sum};
use crate::inspect::Inspect;
use crate::lan::Lan;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Register of port counters (PPCNT), and a group of them (`MLX5_RFC_2863_COUNTERS_GROUP`).
const PPCNT: u16 = 0x5008;
const RFC_2863: u8 = 1;

fn mac(guest: &Netdev) -> [u8; 6] {
    guest.hca.machine.mac
}

/// A TCP packet over IPv4 from one guest to another.
pub fn packet(from: &Netdev, to: &Netdev) -> Packet {
    Packet {
        source: mac(from),
        destination: mac(to),
        vlan: None,
        ipv6: false,
        tcp: true,
        ports: (40000, 443),
        length: 100,
    }
}

#[test]
fn frames_of_all_lengths_arrive_as_they_were_sent() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_rq: 3,
            log_cq: 3,
            log_sq: 3,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    for length in (60..200).chain((200..1500).step_by(97)).chain(1500..=1518) {
        let frame = plain(mac(a), mac(b), length);
        a.send(&frame);
        let received = b.receive();
        assert_eq!(received.frame, frame);
        assert_eq!(received.cqe.byte_count.get() as usize, length);
        assert_eq!(received.cqe.hds_ip_ext, 0, "no headers that have a checksum");
    }
    lan.end();
}

#[test]
fn a_short_frame_is_padded() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let mut frame = plain(mac(a), mac(b), 15);
    a.send(&frame);
    frame.resize(60, 0);
    assert_eq!(b.receive().frame, frame);
    lan.end();
}

#[test]
fn completions_tell_the_checksums() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    for (ipv6, tcp, vlan) in [
        (false, true, None),
        (false, false, None),
        (true, true, None),
        (true, false, Some(7)),
        (false, true, Some(4094)),
    ] {
        let frame = Packet {
            ipv6,
            tcp,
            vlan,
            ..packet(a, b)
        }
        .build();
        a.send(&frame);
        let received = b.receive();
        assert_eq!(received.frame, frame);
        let packet_sum = sum(&frame[network_offset(&frame)..]);
        assert_eq!(received.cqe.check_sum.get(), packet_sum);
        assert_eq!(received.cqe.hds_ip_ext, Cqe::L3_OK | Cqe::L4_OK);

        let mut wrong = frame.clone();
        *wrong.last_mut().unwrap() ^= 0x10;
        a.send(&wrong);
        let received = b.receive();
        assert_eq!(received.frame, wrong, "the frame is the driver's to judge");
        assert_eq!(received.cqe.check_sum.get(), sum(&wrong[network_offset(&wrong)..]));
        assert_eq!(received.cqe.hds_ip_ext, Cqe::L3_OK);
    }
    lan.end();
}

#[test]
fn a_broken_ip_header_is_not_called_right() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let mut frame = packet(a, b).build();
    // The header's checksum itself, so that everything else stays valid.
    frame[24] ^= 1;
    a.send(&frame);
    let received = b.receive();
    assert_eq!(received.frame, frame);
    assert_eq!(received.cqe.hds_ip_ext & Cqe::L3_OK, 0);
    lan.end();
}

#[test]
fn owners_change_with_every_lap_of_small_queues() {
    for large_cqes in [false, true] {
        let options = Options {
            log_cq: 2,
            log_rq: 2,
            log_sq: 2,
            large_cqes,
            ..Options::default()
        };
        let mut lan = Lan::new(2, &options);
        let (a, b) = lan.pair();
        for number in 0..300_usize {
            let frame = plain(mac(a), mac(b), 60 + number);
            a.send(&frame);
            assert_eq!(b.receive().frame, frame);
        }
        lan.end();
    }
}

#[test]
fn counters_of_work_queue_entries_wrap_at_sixteen_bits() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_rq: 4,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    let frame = plain(mac(a), mac(b), 60);
    let block = a.place(&frame);
    let data = [(block.address(), frame.len() as u32)];
    for number in 0..66_000_u32 {
        let request = sq::Request {
            data: &data,
            silent: number % 8 != 7,
            ..Default::default()
        };
        a.channels[0].sq.send(&request);
        if number % 8 == 7 {
            a.channels[0].send_cq.wait();
            a.channels[0].send_cq.release();
            for _ in 0..8 {
                assert_eq!(b.receive().frame.len(), 60);
            }
        }
    }
    drop(block);
    lan.end();
}

#[test]
fn a_frame_is_scattered_over_the_parts_of_a_buffer() {
    let mut lan = Lan::new(
        2,
        &Options {
            parts: vec![1, 13, 50, 500, 2048],
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    for length in [60, 64, 65, 563, 564, 565, 1500] {
        let frame = plain(mac(a), mac(b), length);
        a.send(&frame);
        assert_eq!(b.receive().frame, frame);
    }
    lan.end();
}

#[test]
fn tags_are_stripped_where_the_driver_wants_it() {
    for keep_vlan in [true, false] {
        let mut lan = Lan::new(
            2,
            &Options {
                keep_vlan,
                ..Options::default()
            },
        );
        let (a, b) = lan.pair();
        let tagged = Packet {
            vlan: Some(0x123),
            ..packet(a, b)
        };
        let frame = tagged.build();
        a.send(&frame);
        let received = b.receive();
        assert_eq!(received.cqe.l4_l3_hdr_type & 1, u8::from(!keep_vlan));
        if keep_vlan {
            assert_eq!(received.frame, frame);
        } else {
            assert_eq!(received.frame, Packet { vlan: None, ..tagged }.build());
            assert_eq!(received.cqe.vlan_info.get(), 0x123);
        }
        assert_eq!(received.cqe.hds_ip_ext, Cqe::L3_OK | Cqe::L4_OK);
        lan.end();
    }
}

#[test]
fn frames_for_a_queue_that_is_not_ready_are_counted() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let queue = &b.channels[0].rq;
    queue.modify(&b.hca, state::READY, state::ERROR).unwrap();
    for number in 0..3 {
        a.send(&plain(mac(a), mac(b), 100 + number));
    }
    eventually("the frames", || b.hca.machine.nic().snapshot().port.received >= 3);
    b.expect_silence();
    let port = b.hca.machine.nic().snapshot().port;
    assert_eq!((port.not_ready, port.out_of_buffer, port.unmatched), (3, 0, 0));
    assert_eq!(b.out_of_buffer(), 0);
    let mut input = PpcntReg::default();
    input.set_local_port(1);
    input.set_grp(RFC_2863);
    let counters = b.hca.read_register(PPCNT, &input).unwrap();
    let counters = Eth2863CntrsGrpDataLayout::ref_from_bytes(counters.counter_set()).unwrap();
    assert_eq!(counters.if_in_discards_low(), 3);
    lan.end();
}

#[test]
fn frames_without_a_buffer_are_lost_and_counted() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_rq: 2,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    for number in 0..10 {
        a.send(&plain(mac(a), mac(b), 100 + number));
    }
    for number in 0..4 {
        assert_eq!(b.receive().frame, plain(mac(a), mac(b), 100 + number));
    }
    b.expect_silence();
    assert_eq!(b.out_of_buffer(), 6);
    assert_eq!(b.hca.machine.nic().snapshot().port.out_of_buffer, 6);
    a.send(&plain(mac(a), mac(b), 200));
    assert_eq!(b.receive().frame.len(), 200, "the queue continues with the next buffer");
    lan.end();
}

#[test]
fn only_frames_to_the_interface_are_taken() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let other = [0x52, 0x54, 0, 0, 0xc5, 0x77];
    let group = [0x33, 0x33, 0, 0, 0, 5];
    a.send(&plain(mac(a), other, 60));
    a.send(&plain(mac(a), group, 61));
    b.expect_silence();
    assert_eq!(b.hca.machine.nic().snapshot().port.unmatched, 2);
    a.send(&plain(mac(a), BROADCAST, 62));
    assert_eq!(b.receive().frame.len(), 62);
    b.listen(2, group);
    a.send(&plain(mac(a), group, 63));
    assert_eq!(b.receive().frame.len(), 63);
    a.send(&plain(mac(a), [0x33, 0x33, 0, 0, 0, 6], 64));
    b.expect_silence();
    b.listen_to_groups();
    a.send(&plain(mac(a), [0x33, 0x33, 0, 0, 0, 6], 65));
    assert_eq!(b.receive().frame.len(), 65);
    a.send(&plain(mac(a), other, 66));
    b.expect_silence();
    b.listen_to_everything();
    a.send(&plain(mac(a), other, 67));
    assert_eq!(b.receive().frame.len(), 67);
    b.forget_everything();
    b.forget_groups();
    b.forget(2);
    a.send(&plain(mac(a), other, 68));
    a.send(&plain(mac(a), group, 69));
    b.expect_silence();
    lan.end();
}
