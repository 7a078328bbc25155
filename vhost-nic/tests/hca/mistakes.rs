//! Mistakes of a driver, and the errors that hardware reports.

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, EventType, Syndrome};
use mlx5_prm::wqe::{EthernetSegment, WqeOpcode};
use mlx5_test_driver::cq::error_of;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::memory::{BASE, SIZE};
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::rq::segment;
use mlx5_test_driver::sq::{Request, SendQueue, state};
use mlx5_test_driver::wait::{BRIEF, eventually};
use vhost_nic::hca::nic_finding::Finding;
use zerocopy::{FromBytes, IntoBytes};

use crate::found::{Found, found};
use crate::frames::{Packet, plain};
use crate::inspect::Inspect;
use crate::lan::{Lan, shut};

/// A TCP packet between addresses of no guest.
const TCP: Packet = Packet {
    source: [2, 0, 0, 0, 0, 1],
    destination: [2, 0, 0, 0, 0, 2],
    vlan: None,
    ipv6: false,
    tcp: true,
    ports: (1, 2),
    length: 0,
};

/// Posts WQEs made by `make` on a new interface, followed by a valid one, and checks their errors. The queue recovers
/// afterwards.
#[track_caller]
fn fails(syndrome: Syndrome, make: impl FnOnce(&SendQueue, u64) -> Vec<u8>) {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    let block = a.place(&frame);
    let good = [(block.address(), 100)];
    let channel = &mut a.channels[0];
    let wqe = make(&channel.sq, block.address());
    let counter = channel.sq.post(&wqe);
    let cqe = channel.send_cq.wait();
    assert_eq!(error_of(&cqe), Some((syndrome as u8, counter)), "{cqe:?}");
    assert_eq!(channel.sq.query(&a.hca).unwrap().state(), state::ERROR);
    // The driver's recovery: RST, RDY (core/en/reporter_tx.c).
    channel.sq.modify(&a.hca, state::ERROR, state::RESET).unwrap();
    while channel.send_cq.poll().is_some() {}
    channel.send_cq.release();
    channel.sq.forget();
    channel.sq.modify(&a.hca, state::RESET, state::READY).unwrap();
    let counter = channel.sq.send(&Request {
        data: &good,
        ..Request::default()
    });
    channel.sq.check(&channel.send_cq.wait(), WqeOpcode::Send, counter);
    assert_eq!(b.receive().frame, frame);
    assert_eq!(
        a.hca.machine.nic().snapshot().guest_errors.get("bad_send_wqe"),
        Some(&1)
    );
    drop(block);
    lan.guests.into_iter().for_each(shut);
}

#[test]
fn an_unknown_key_is_an_error() {
    fails(Syndrome::LocalProtection, |sq, address| {
        let mut wqe = sq.wqe(&Request {
            data: &[(address, 100)],
            ..Request::default()
        });
        let key = wqe.len() - 12;
        wqe[key..key + 4].copy_from_slice(&0x7777_7700_u32.to_be_bytes());
        wqe
    });
}

#[test]
fn another_variant_of_a_key_is_an_error() {
    fails(Syndrome::LocalProtection, |sq, address| {
        let mut wqe = sq.wqe(&Request {
            data: &[(address, 100)],
            ..Request::default()
        });
        let variant = wqe.len() - 9;
        wqe[variant] ^= 1;
        wqe
    });
}

#[test]
fn an_address_without_memory_is_an_error() {
    for address in [0, BASE + SIZE - 50, u64::MAX, u64::MAX - 50] {
        fails(Syndrome::LocalProtection, |sq, _| {
            sq.wqe(&Request {
                data: &[(address, 100)],
                ..Request::default()
            })
        });
    }
}

#[test]
fn an_opcode_of_another_kind_of_queue_is_an_error() {
    for opcode in [WqeOpcode::RdmaWrite as u8, WqeOpcode::Umr as u8, 0x29, 0xff] {
        fails(Syndrome::LocalQpOperation, |sq, _| {
            let mut wqe = sq.wqe(&Request::default());
            wqe[3] = opcode;
            wqe
        });
    }
}

#[test]
fn an_entry_without_a_size_is_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, _| {
        sq.control(WqeOpcode::Nop as u8, 0, false).as_bytes().to_vec()
    });
}

#[test]
fn an_entry_beyond_what_is_posted_is_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, _| {
        sq.control(WqeOpcode::Nop as u8, 63 * 16, false).as_bytes().to_vec()
    });
}

#[test]
fn an_entry_larger_than_its_queue_is_an_error() {
    let lan = Lan::new(
        1,
        &Options {
            log_sq: 2,
            ..Options::default()
        },
    );
    let mut guest = lan.guests.into_iter().next().unwrap();
    let channel = &mut guest.channels[0];
    let control = channel.sq.control(WqeOpcode::Nop as u8, 63 * 16, false);
    channel.sq.set_record(16);
    guest.hca.machine.write_pair(
        u64::from(guest.hca.uar) * 4096 + 0x800,
        *control.as_bytes().first_chunk().unwrap(),
    );
    let channel = &mut guest.channels[0];
    channel.sq.post(control.as_bytes());
    assert!(error_of(&channel.send_cq.wait()).is_some());
    shut(guest);
}

#[test]
fn a_send_without_an_ethernet_segment_is_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, _| {
        sq.control(WqeOpcode::Send as u8, 16, false).as_bytes().to_vec()
    });
}

#[test]
fn headers_longer_than_the_entry_are_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, _| {
        let mut ethernet = EthernetSegment::default();
        ethernet.inline_header_size.set(0x3ff);
        [
            sq.control(WqeOpcode::Send as u8, 32, false).as_bytes(),
            ethernet.as_bytes(),
        ]
        .concat()
    });
}

#[test]
fn a_frame_of_gigabytes_is_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, address| {
        sq.wqe(&Request {
            data: &[(address, 0x7fff_ffff)],
            ..Request::default()
        })
    });
}

#[test]
fn segmenting_what_is_no_tcp_is_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, address| {
        sq.wqe(&Request {
            data: &[(address, 100)],
            mss: 1000,
            ..Request::default()
        })
    });
}

#[test]
fn segments_without_number_are_an_error() {
    fails(Syndrome::LocalQpOperation, |sq, address| {
        let frame = Packet { length: 1, ..TCP }.build();
        sq.wqe(&Request {
            inline: &frame,
            data: &[(address, 65_535)],
            mss: 1,
            ..Request::default()
        })
    });
}

#[test]
fn what_is_posted_behind_an_error_is_flushed_in_order() {
    let lan = Lan::new(1, &Options::default());
    let mut guest = lan.guests.into_iter().next().unwrap();
    let channel = &mut guest.channels[0];
    let bad = channel.sq.control(0xff, 16, false);
    channel.sq.put(bad.as_bytes());
    for _ in 0..5 {
        let nop = channel.sq.control(WqeOpcode::Nop as u8, 16, true);
        channel.sq.put(nop.as_bytes());
    }
    channel.sq.ring(*bad.as_bytes().first_chunk().unwrap());
    assert_eq!(
        error_of(&channel.send_cq.wait()),
        Some((Syndrome::LocalQpOperation as u8, 0))
    );
    for counter in 1..6 {
        assert_eq!(
            error_of(&channel.send_cq.wait()),
            Some((Syndrome::WrFlush as u8, counter))
        );
    }
    let late = channel.sq.nop();
    assert_eq!(error_of(&channel.send_cq.wait()), Some((Syndrome::WrFlush as u8, late)));
    shut(guest);
}

/// The driver walks its WQEs up to the counter of a completion (`mlx5e_poll_tx_cq`, core/en_tx.c), and never ends if
/// that is not the first block of one.
#[test]
fn completions_behind_an_error_name_the_first_block_of_each_entry() {
    type Damage = fn(&mut Vec<u8>);
    let unknown_key: Damage = |wqe| wqe[36..40].copy_from_slice(&0x7777_7700_u32.to_be_bytes());
    let unknown_opcode: Damage = |wqe| wqe[3] = 0xff;
    let too_long: Damage = |wqe| wqe[32..36].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    for (damage, syndrome) in [
        (unknown_key, Syndrome::LocalProtection),
        (unknown_opcode, Syndrome::LocalQpOperation),
        (too_long, Syndrome::LocalQpOperation),
    ] {
        let lan = Lan::new(1, &Options::default());
        let mut guest = lan.guests.into_iter().next().unwrap();
        let block = guest.place(&[0; 100]);
        let channel = &mut guest.channels[0];
        // Of 1 to 4 basic blocks; data segments that are taken for control segments have such sizes, too.
        let entry = |sq: &SendQueue, segments: usize| {
            sq.wqe(&Request {
                data: &vec![(block.address(), 4); segments],
                ..Request::default()
            })
        };
        let mut bad = entry(&channel.sq, 9);
        assert_eq!(bad.len(), 11 * 16);
        damage(&mut bad);
        let mut counters = vec![channel.sq.put(&bad)];
        let mut last = bad;
        for segments in [13, 1, 5, 1] {
            last = entry(&channel.sq, segments);
            counters.push(channel.sq.put(&last));
        }
        assert_eq!(counters, [0, 3, 7, 8, 10]);
        channel.sq.ring(*last.first_chunk().unwrap());
        assert_eq!(
            error_of(&channel.send_cq.wait()),
            Some((syndrome as u8, counters[0])),
            "{syndrome:?}"
        );
        for counter in &counters[1..] {
            let found = error_of(&channel.send_cq.wait());
            assert_eq!(found, Some((Syndrome::WrFlush as u8, *counter)), "{syndrome:?}");
        }
        assert!(
            channel.send_cq.poll().is_none(),
            "{syndrome:?}: more completions than entries"
        );
        drop(block);
        shut(guest);
    }
}

/// Receives one frame into a queue whose next WQE is `list`. Returns the syndrome of its completion.
fn receive_into(damage: impl FnOnce(&mut Netdev)) -> u8 {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    damage(b);
    a.send(&plain(a.hca.machine.mac, b.hca.machine.mac, 100));
    let cqe = b.channels[0].receive_cq.wait();
    let (syndrome, counter) = error_of(&cqe).unwrap();
    assert_eq!(counter, 0);
    assert_eq!(
        b.hca.machine.nic().snapshot().guest_errors.get("bad_receive_wqe"),
        Some(&1)
    );
    assert_eq!(b.channels[0].rq.query(&b.hca).unwrap().state(), state::ERROR);
    let channel = &mut b.channels[0];
    // The driver's recovery (core/en/reporter_rx.c).
    channel.rq.modify(&b.hca, state::ERROR, state::RESET).unwrap();
    while channel.receive_cq.poll().is_some() {}
    channel.receive_cq.release();
    channel.rq.forget();
    channel.rq.modify(&b.hca, state::RESET, state::READY).unwrap();
    channel.rq.fill();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 200);
    a.send(&frame);
    assert_eq!(b.receive().frame, frame);
    lan.guests.into_iter().for_each(shut);
    syndrome
}

#[test]
fn a_receive_buffer_with_a_bad_key_is_an_error() {
    let syndrome = receive_into(|b| {
        let list = [segment(b.channels[0].rq.buffer_address(0), 2048, 0x1234_5600)];
        b.channels[0].rq.write_wqe(0, &list);
    });
    assert_eq!(syndrome, Syndrome::LocalProtection as u8);
}

#[test]
fn a_receive_buffer_outside_memory_is_an_error() {
    let syndrome = receive_into(|b| {
        let list = [segment(BASE + SIZE - 8, 2048, b.key)];
        b.channels[0].rq.write_wqe(0, &list);
    });
    assert_eq!(syndrome, Syndrome::LocalProtection as u8);
}

#[test]
fn a_frame_longer_than_its_buffer_is_an_error() {
    let syndrome = receive_into(|b| {
        let list = [segment(b.channels[0].rq.buffer_address(0), 99, b.key)];
        b.channels[0].rq.write_wqe(0, &list);
    });
    assert_eq!(syndrome, Syndrome::LocalLength as u8);
}

#[test]
fn a_completion_queue_that_overruns_is_an_event() {
    let lan = Lan::new(
        1,
        &Options {
            log_cq: 2,
            ..Options::default()
        },
    );
    let mut guest = lan.guests.into_iter().next().unwrap();
    let channel = &mut guest.channels[0];
    for _ in 0..5 {
        channel.sq.nop();
    }
    let event = guest.hca.wait_event(EventType::CqError);
    let number = guest.channels[0].send_cq.number;
    assert_eq!(event.data[..4], number.to_be_bytes());
    assert_eq!(event.data[11], 1, "overrun");
    let channel = &mut guest.channels[0];
    for _ in 0..4 {
        assert_eq!(error_of(&channel.send_cq.wait()), None, "those that had room are good");
    }
    assert!(channel.send_cq.poll().is_none());
    let sq = guest.channels[0].sq.number;
    let [overrun] = &found(&guest.hca.machine)[..] else {
        panic!("one finding");
    };
    let expected = Found::new(Finding::CqOverrun, "cq", number.into(), &overrun.evidence);
    assert_eq!(*overrun, expected);
    // The CQE of the fifth WQE, with room for nothing more.
    let cqe = Cqe::read_from_bytes(&overrun.evidence).unwrap();
    let opcode = WqeOpcode::Nop as u32;
    assert_eq!((cqe.wqe_counter.get(), cqe.op_own >> 4), (4, CqeOpcode::Request as u8));
    assert_eq!(cqe.sop_drop_qpn.get(), opcode << 24 | sq);
    shut(guest);
}

#[test]
fn frames_beyond_a_receive_queue_are_an_overrun() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let rq = &mut b.channels[0].rq;
    let beyond = rq.size() + 1;
    rq.post(beyond - rq.available());
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    a.send(&frame);
    assert_eq!(b.receive().frame, frame);
    let evidence = [beyond.to_be_bytes(), [0; 2]].concat();
    let number = b.channels[0].rq.number.into();
    let expected = Found::new(Finding::QueueOverrun, "queue", number, &evidence);
    assert_eq!(found(&b.hca.machine), [expected]);
    lan.guests.into_iter().for_each(shut);
}

#[test]
fn a_doorbell_record_outside_memory_ends_its_queue() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let machine = a.hca.machine.clone();
    let counts = |machine: &Machine| machine.nic().snapshot().guest_errors;
    // Data of the event: type of the queue (1: RQ, 2: SQ), and its number.
    let hears = |guest: &Netdev, kind: u8, number: u32| {
        let event = guest.hca.wait_event(EventType::WqCatastrophicError);
        assert_eq!((event.data[20], &event.data[24..]), (kind, &number.to_be_bytes()[..]));
    };
    let channel = &mut a.channels[0];
    let (_, record) = channel.sq.addresses();
    machine.function().dma().unmap(record & !0xfff, 4096).unwrap();
    let lost = channel.sq.nop();
    eventually("a guest error", || {
        counts(&machine).contains_key("unreadable_doorbell_record")
    });
    machine.function().dma().unmap_all();
    machine.map();
    // Flushed once the record can be read.
    let channel = &mut a.channels[0];
    assert_eq!(error_of(&channel.send_cq.wait()), Some((Syndrome::WrFlush as u8, lost)));
    let late = channel.sq.nop();
    assert_eq!(error_of(&channel.send_cq.wait()), Some((Syndrome::WrFlush as u8, late)));
    channel.send_cq.release();
    assert_eq!(channel.sq.query(&a.hca).unwrap().state(), state::ERROR);
    let number = channel.sq.number;
    hears(a, 2, number);
    // The driver's recovery.
    let channel = &mut a.channels[0];
    channel.sq.modify(&a.hca, state::ERROR, state::RESET).unwrap();
    channel.sq.forget();
    channel.sq.modify(&a.hca, state::RESET, state::READY).unwrap();
    let (_, record) = b.channels[0].rq.addresses();
    let receiver = b.hca.machine.clone();
    receiver.function().dma().unmap(record & !0xfff, 4096).unwrap();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    a.send(&frame);
    eventually("a guest error", || {
        counts(&receiver).contains_key("unreadable_doorbell_record")
    });
    receiver.function().dma().unmap_all();
    receiver.map();
    hears(b, 1, b.channels[0].rq.number);
    a.send(&frame);
    assert!(
        b.channels[0].receive_cq.poll().is_none(),
        "an RQ in error receives nothing"
    );
}

#[test]
fn memory_that_goes_away_in_use_ends_what_uses_it() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let (source, destination) = (a.hca.machine.mac, b.hca.machine.mac);
    b.hca.machine.function().dma().unmap_all();
    for number in 0..10 {
        a.send(&plain(source, destination, 100 + number));
    }
    let guest_errors = b.hca.machine.nic().snapshot().guest_errors;
    assert_eq!(
        guest_errors.get("unreadable_doorbell_record"),
        Some(&1),
        "an RQ in error does not look: {guest_errors:?}"
    );
    a.hca.machine.function().dma().unmap_all();
    a.channels[0].sq.nop();
    std::thread::sleep(BRIEF);
    let guest_errors = a.hca.machine.nic().snapshot().guest_errors;
    assert_eq!(
        guest_errors.get("unreadable_doorbell_record"),
        Some(&1),
        "{guest_errors:?}"
    );
}

#[test]
fn an_entry_wraps_where_its_ring_ends() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_sq: 2,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 150);
    // Three basic blocks in a ring of four: each WQE starts at a different one.
    for _ in 0..16 {
        let (inline, rest) = frame.split_at(120);
        a.send_with(
            rest,
            Request {
                inline,
                ..Request::default()
            },
        );
        assert_eq!(b.receive().frame, frame);
    }
    lan.end();
}
