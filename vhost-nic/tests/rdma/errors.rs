//! Errors, and how they are reported to both sides.

use std::time::Duration;

use mlx5_prm::queue_entry::{CqeOpcode, EventType, Syndrome};
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::cq::{error_of, vendor_error_of};
use mlx5_test_driver::domain::{alloc_pd, dealloc_pd};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::{Region, Rights};
use mlx5_test_driver::wait::{await_some, eventually};
use vhost_nic::net::Switch;
use vhost_nic::roce::headers::{Aeth, Bth, Headers};
use vhost_nic::roce::opcode::Opcode;
use vhost_nic::roce::psn::Psn;
use zerocopy::IntoBytes;

use crate::nic::machine;
use crate::pair::{Pair, pattern};
use crate::raw_peer::RawPeer;
use crate::wire::Fate;

/// `QPC.state` of a queue pair in error.
const ERROR: u8 = 6;

fn pair() -> Pair {
    Pair::new(Shape::new(service::RC), &Connection::default())
}

#[track_caller]
fn expect_event(node: &Node, event_type: EventType, number: u32) {
    let event = node.hca.wait_event(event_type);
    assert_eq!(event.data[24..], number.to_be_bytes());
}

#[track_caller]
fn expect_states(pair: &Pair, a: u8, b: u8) {
    assert_eq!(pair.a.qp.query(&pair.a.node).unwrap().state(), a);
    assert_eq!(pair.b.qp.query(&pair.b.node).unwrap().state(), b);
}

#[test]
fn a_bad_local_key_is_a_local_protection_error() {
    for opcode in [WqeOpcode::Send, WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead] {
        let mut pair = pair();
        let receive = pair.b.qp.receive(&[pair.b.part(0, 100)]);
        let (address, length, key) = pair.a.part(0, 100);
        let data = vec![Data::Memory((address, length, key ^ 1))];
        let request = match opcode {
            WqeOpcode::Send => Request::new(opcode, data),
            _ => pair.request(opcode, data, 0),
        };
        let bad = pair.a.qp.put(&request);
        let after = pair.a.qp.put(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
        pair.a.qp.ring();
        assert_eq!(pair.a.qp.send_error(bad), 0x04, "{opcode:?}");
        assert_eq!(pair.a.qp.send_error(after), 0x05);
        expect_states(&pair, ERROR, 3);
        pair.b.qp.silent();
        let _ = receive;
        pair.end();
    }
}

#[test]
fn wqes_that_make_no_sense_are_local_queue_pair_errors() {
    // An opcode that does not exist, and an atomic of 4 bytes.
    for kind in 0..2 {
        let mut pair = pair();
        let good = pair.a.qp.put(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
        let bad = if kind == 0 {
            let mut control = ControlSegment::default();
            control.opmod_idx_opcode.set(0x3f);
            control.qpn_ds.set(pair.a.qp.number << 8 | 1);
            pair.a.qp.put_bytes(control.as_bytes())
        } else {
            let mut request = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 4), 0);
            request.operands = Some((1, 0));
            pair.a.qp.put(&request)
        };
        pair.a.qp.ring();
        pair.a.qp.sent(WqeOpcode::RdmaWrite, good);
        assert_eq!(pair.a.qp.send_error(bad), 0x02);
        expect_states(&pair, ERROR, 3);
        pair.end();
    }
}

#[test]
fn what_a_key_does_not_allow_is_a_remote_access_error() {
    let read_only = Rights::READ_ONLY;
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead, WqeOpcode::AtomicFetchAdd] {
        // Missing right, other protection domain, beyond the end, no such key.
        for kind in 0..4 {
            let mut pair = pair();
            let hca = &pair.b.node.hca;
            let other_pd = alloc_pd(hca).unwrap();
            let (pd, rights) = match kind {
                0 => (pair.b.node.pd, read_only),
                1 => (other_pd, Rights::ALL),
                _ => (pair.b.node.pd, Rights::ALL),
            };
            let target = Region::create(hca, pd, 4096, rights).unwrap();
            let canvas = pattern(4, 4096);
            target.write(0, &canvas);
            let (address, key) = match kind {
                2 => (target.at(4096), target.key),
                3 => (target.start, target.key ^ 1),
                _ => (target.start, target.key),
            };
            let mut request = Request::remote(opcode, pair.a.data(0, 8), address, key);
            if opcode == WqeOpcode::AtomicFetchAdd {
                request.operands = Some((1, 0));
            }
            let receive = pair.b.qp.receive(&[pair.b.part(0, 100)]);
            let bad = pair.a.qp.post(&request);
            assert_eq!(pair.a.qp.send_error(bad), 0x13, "{opcode:?} {kind}");
            assert_eq!(pair.b.qp.receive_error(receive), 0x05);
            expect_event(&pair.b.node, EventType::WqAccessError, pair.b.qp.number);
            expect_states(&pair, ERROR, ERROR);
            assert!(target.read(0, 4096) == canvas);
            target.destroy(&pair.b.node.hca).unwrap();
            dealloc_pd(&pair.b.node.hca, other_pd).unwrap();
            pair.end();
        }
    }
}

#[test]
fn what_the_queue_pair_does_not_allow_is_a_remote_invalid_request() {
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead, WqeOpcode::AtomicCompareSwap] {
        let how = Connection {
            access: (false, false, false),
            ..Connection::default()
        };
        let mut pair = Pair::new(Shape::new(service::RC), &how);
        let mut request = pair.request(opcode, pair.a.data(0, 8), 0);
        if opcode == WqeOpcode::AtomicCompareSwap {
            request.operands = Some((1, 0));
        }
        let bad = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(bad), 0x12);
        expect_event(&pair.b.node, EventType::WqInvalidRequestError, pair.b.qp.number);
        expect_states(&pair, ERROR, ERROR);
        pair.end();
    }
}

#[test]
fn an_atomic_at_an_odd_address_is_a_remote_invalid_request() {
    let mut pair = pair();
    let mut request = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 8), 4);
    request.operands = Some((1, 0));
    let bad = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(bad), 0x12);
    expect_event(&pair.b.node, EventType::WqInvalidRequestError, pair.b.qp.number);
    pair.end();
}

#[test]
fn a_message_longer_than_its_receive_is_an_error_on_both_sides() {
    for length in [101, 1025, 5000] {
        let mut pair = pair();
        let first = pair.b.qp.receive(&[pair.b.part(0, 60), pair.b.part(100, 40)]);
        let second = pair.b.qp.receive(&[pair.b.part(0, 60)]);
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, length)));
        assert_eq!(pair.a.qp.send_error(send), 0x12);
        assert_eq!(pair.b.qp.receive_error(first), 0x01);
        assert_eq!(pair.b.qp.receive_error(second), 0x05);
        expect_states(&pair, ERROR, ERROR);
        pair.end();
    }
}

#[test]
fn a_receive_into_a_bad_key_is_an_error_on_both_sides() {
    let mut pair = pair();
    let (address, length, key) = pair.b.part(0, 100);
    let receive = pair.b.qp.receive(&[(address, length, key ^ 1)]);
    let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 100)));
    assert_eq!(pair.a.qp.send_error(send), 0x14);
    assert_eq!(pair.b.qp.receive_error(receive), 0x04);
    expect_states(&pair, ERROR, ERROR);
    pair.end();
}

#[test]
fn a_key_that_cannot_be_invalidated_gives_the_receive_back() {
    let mut pair = pair();
    let receive = pair.b.qp.receive(&[pair.b.part(0, 100)]);
    let mut request = Request::new(WqeOpcode::SendInvalidate, pair.a.data(0, 100));
    request.immediate = 0x00ff_ff00;
    let send = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(send), 0x13);
    assert_eq!(pair.b.qp.receive_error(receive), 0x05);
    pair.b.qp.silent();
    pair.end();
}

#[test]
fn all_that_is_posted_before_and_after_an_error_comes_back() {
    let mut pair = pair();
    let receives: Vec<u16> = (0..5).map(|_| pair.b.qp.receive(&[pair.b.part(0, 8)])).collect();
    pair.b.qp.fail(&pair.b.node).unwrap();
    for receive in receives {
        assert_eq!(pair.b.qp.receive_error(receive), 0x05);
    }
    let silent = Request {
        flags: 0,
        ..Request::new(WqeOpcode::Send, pair.b.data(0, 8))
    };
    for round in 0..5 {
        // Receives have no doorbell.
        let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
        assert_eq!(pair.b.qp.receive_error(receive), 0x05, "{round}");
        let send = pair.b.qp.post(&silent);
        assert_eq!(pair.b.qp.send_error(send), 0x05);
        std::thread::sleep(Duration::from_millis(3));
    }
    pair.b.qp.silent();
    // It works again after a reset.
    pair.b.qp.reset(&pair.b.node).unwrap();
    pair.a.qp.reset(&pair.a.node).unwrap();
    let how = Connection::default();
    connect((&pair.a.node, &pair.a.qp), (&pair.b.node, &pair.b.qp), &how);
    let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
    let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(100, 8)));
    pair.a.qp.sent(WqeOpcode::Send, send);
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, 8);
    pair.end();
}

/// Syndrome, vendor syndrome, and a request that ends with these.
type Case = (u8, u8, fn(&Pair) -> Request);

#[test]
fn completions_say_what_the_vendor_calls_their_error() {
    let how = Connection {
        retry_count: 1,
        ..Connection::default()
    };
    let cases: [Case; 5] = [
        (0x02, 0x68, |pair| {
            let mut request = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 4), 0);
            request.operands = Some((1, 0));
            request
        }),
        (0x04, 0x51, |pair| {
            let (address, length, key) = pair.a.part(0, 8);
            Request::new(WqeOpcode::Send, vec![Data::Memory((address, length, key ^ 1))])
        }),
        (0x12, 0x8a, |pair| {
            let mut request = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 8), 4);
            request.operands = Some((1, 0));
            request
        }),
        (0x13, 0x88, |pair| {
            let mut request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
            request.remote = request.remote.map(|(address, key)| (address, key ^ 1));
            request
        }),
        (0x15, 0x81, |pair| {
            pair.wire.judge(|_| Fate::Drop);
            pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0)
        }),
    ];
    for (syndrome, vendor, make) in cases {
        let mut pair = Pair::new(Shape::new(service::RC), &how);
        let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
        let bad = pair.a.qp.put(&make(&pair));
        let after = pair.a.qp.put(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
        pair.a.qp.ring();
        for (counter, expected) in [(bad, (syndrome, vendor)), (after, (0x05, 0xf9))] {
            let cqe = pair.a.qp.send_cq.wait();
            pair.a.qp.send_cq.release();
            assert_eq!(error_of(&cqe), Some((expected.0, counter)));
            assert_eq!(vendor_error_of(&cqe), expected.1, "{syndrome:#x}");
        }
        pair.b.qp.fail(&pair.b.node).unwrap();
        let cqe = pair.b.qp.receive_cq.wait();
        pair.b.qp.receive_cq.release();
        assert_eq!((error_of(&cqe), vendor_error_of(&cqe)), (Some((0x05, receive)), 0xf9));
        pair.end();
    }
}

#[test]
fn a_nak_for_what_waits_to_be_sent_again_is_no_retry() {
    /// RC Acknowledge; ACK, RNR NAK of 655.36 ms, and NAK of a PSN sequence error (IBTA 9.7.5.2).
    const ACKNOWLEDGE: u8 = 0x11;
    const ACK: u8 = 0x1f;
    const RNR: u8 = 0x20;
    const PSN_SEQUENCE: u8 = 0x60;
    let switch = Switch::new();
    let peer = RawPeer::new(&switch, 9);
    let node = Node::open(machine(&switch, 1), 1);
    let mut qp = QueuePair::create(&node, Shape::new(service::RC)).unwrap();
    // One retry, and no timeout that is one.
    let how = Connection {
        retry_count: 1,
        ack_timeout: 0,
        ..Connection::default()
    };
    qp.initialize(&node, &how).unwrap();
    qp.make_ready_to_receive(&node, (peer.mac, peer.gid), 0x77, &how)
        .unwrap();
    qp.make_ready_to_send(&node, &how).unwrap();
    let data = vec![Data::Inline(vec![0x5a; 8])];
    let counter = qp.post(&Request::remote(WqeOpcode::RdmaWrite, data, 0x1000, 0x1234));
    let number = qp.number;
    let answer = |psn, syndrome| {
        let opcode = Opcode::from_byte(ACKNOWLEDGE).unwrap();
        let mut headers = Headers::new(Bth::new(opcode, number, Psn::new(psn)));
        headers.aeth = Some(Aeth::new(syndrome, 1));
        peer.send(&peer.packet(&node, &headers, &[]));
    };
    let packets = || {
        await_some("a packet", || {
            Some(peer.packets()).filter(|packets| !packets.is_empty())
        })
    };
    assert_eq!(packets().len(), 1);
    answer(how.psn.0, RNR);
    for _ in 0..3 {
        answer(how.psn.0, PSN_SEQUENCE);
    }
    // After the delay, once.
    assert_eq!(packets().len(), 1);
    answer(how.psn.0, ACK);
    qp.sent(WqeOpcode::RdmaWrite, counter);
    // One that has been sent again is one, the next is one too many.
    let data = vec![Data::Inline(vec![0x5a; 8])];
    let counter = qp.post(&Request::remote(WqeOpcode::RdmaWrite, data, 0x1000, 0x1234));
    for _ in 0..2 {
        assert_eq!(packets().len(), 1);
        answer(how.psn.0 + 1, PSN_SEQUENCE);
    }
    assert_eq!(qp.send_error(counter), Syndrome::TransportRetryExceeded as u8);
    eventually("the error state", || qp.query(&node).unwrap().state() == ERROR);
}
