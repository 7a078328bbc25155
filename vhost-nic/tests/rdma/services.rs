//! Datagrams, shared receive queues, remote invalidation and loopback.

use mlx5_prm::queue_entry::{CqeOpcode, EventType};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Data, Q_KEY, QueuePair, Request, Shape, address, connect, service};
use mlx5_test_driver::srq::Srq;

use crate::pair::{Pair, pattern};

/// Bytes of the GRH before a datagram.
const GRH: usize = 40;

#[test]
fn inline_and_pointer_segments_mix() {
    for service in [service::RC, service::UC] {
        let mut pair = Pair::new(Shape::new(service), &Connection::default());
        for size in [0, 1, 3, 11, 12, 13, 28, 44, 100, 300] {
            let (head, middle, tail) = (pattern(1, size), pattern(2, 1500), pattern(3, size / 2));
            pair.a.memory.write(10, &middle);
            let data = vec![
                Data::Inline(head.clone()),
                Data::Memory(pair.a.part(10, 1500)),
                Data::Inline(tail.clone()),
            ];
            let expected = [head, middle, tail].concat();
            let receive = pair.b.qp.receive(&[pair.b.part(0, expected.len())]);
            let mut request = Request::new(WqeOpcode::SendImmediate, data.clone());
            request.immediate = 0x0102_0304;
            let send = pair.a.qp.post(&request);
            let cqe = pair
                .b
                .qp
                .received(CqeOpcode::ResponderSendImmediate, receive, expected.len());
            assert_eq!(cqe.immediate.get(), 0x0102_0304);
            pair.a.qp.sent(WqeOpcode::SendImmediate, send);
            assert!(pair.b.memory.read(0, expected.len()) == expected);
            let write = pair.a.qp.post(&pair.request(WqeOpcode::RdmaWrite, data, 5001));
            pair.a.qp.sent(WqeOpcode::RdmaWrite, write);
            assert!(pair.b.memory.read(5001, expected.len()) == expected);
        }
        pair.end();
    }
}

#[test]
fn a_message_takes_a_key_away() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let target = pair.b.node.region(4096);
    let data = pattern(6, 2500);
    pair.a.memory.write(0, &data);
    let remote = Request::remote(WqeOpcode::RdmaWrite, pair.a.data(0, 100), target.start, target.key);
    let write = pair.a.qp.post(&remote);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, write);
    let receive = pair.b.qp.receive(&[pair.b.part(0, 2500)]);
    let mut request = Request::new(WqeOpcode::SendInvalidate, pair.a.data(0, 2500));
    request.immediate = target.key;
    let send = pair.a.qp.post(&request);
    let cqe = pair.b.qp.received(CqeOpcode::ResponderSendInvalidate, receive, 2500);
    assert_eq!(cqe.immediate.get(), target.key);
    pair.a.qp.sent(WqeOpcode::SendInvalidate, send);
    assert!(pair.b.memory.read(0, 2500) == data && target.read(0, 100) == data[..100]);
    let write = pair.a.qp.post(&remote);
    assert_eq!(pair.a.qp.send_error(write), 0x13);
    target.destroy(&pair.b.node.hca).unwrap();
    pair.end();
}

#[test]
fn atomics_return_what_they_found() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let mut value = u64::MAX - 2;
    pair.b.memory.write(64, &value.to_le_bytes());
    for round in 0..20_u64 {
        let mut request = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(3, 8), 64);
        request.operands = Some((round, 0));
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::AtomicFetchAdd, counter);
        assert_eq!(pair.a.memory.read(3, 8), value.to_le_bytes());
        value = value.wrapping_add(round);
        let compare = if round % 3 == 0 { value ^ 1 } else { value };
        let mut request = pair.request(WqeOpcode::AtomicCompareSwap, pair.a.data(3, 8), 64);
        request.operands = Some((round << 40, compare));
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::AtomicCompareSwap, counter);
        assert_eq!(pair.a.memory.read(3, 8), value.to_le_bytes());
        if compare == value {
            value = round << 40;
        }
        assert_eq!(pair.b.memory.read(64, 8), value.to_le_bytes());
    }
    pair.end();
}

#[test]
fn datagrams_arrive_behind_their_header() {
    let how = Connection::default();
    let mut pair = Pair::new(Shape::new(service::UD), &how);
    for length in [0, 1, 31, 32, 33, 63, 64, 65, 1023, 1024] {
        for immediate in [false, true] {
            let data = pattern(length as u64, length);
            pair.a.memory.write(7, &data);
            let room = length + GRH;
            let receive = pair
                .b
                .qp
                .receive(&[pair.b.part(1000, 17), pair.b.part(1017, room - 17)]);
            let opcode = if immediate {
                WqeOpcode::SendImmediate
            } else {
                WqeOpcode::Send
            };
            let mut request = Request::new(opcode, pair.a.data(7, length));
            request.to = Some(address(&pair.b.node, pair.b.qp.number, Q_KEY));
            request.immediate = 0x7777_0001;
            let send = pair.a.qp.post(&request);
            let kind = if immediate {
                CqeOpcode::ResponderSendImmediate
            } else {
                CqeOpcode::ResponderSend
            };
            let cqe = pair.b.qp.received(kind, receive, room);
            assert_eq!(cqe.flags_rqpn.get() & 0xff_ffff, pair.a.qp.number);
            assert_eq!(cqe.flags_rqpn.get() >> 28 & 3, 1, "there is a header");
            if immediate {
                assert_eq!(cqe.immediate.get(), 0x7777_0001);
            }
            pair.a.qp.sent(opcode, send);
            let arrived = pair.b.memory.read(1000, room);
            assert!(arrived[GRH..] == data, "{length}");
            // The IPv4 header is in the last 20 bytes of the GRH.
            assert_eq!(
                (arrived[20], &arrived[32..36], &arrived[36..40]),
                (0x45, &[10, 0, 0, 1][..], &[10, 0, 0, 2][..])
            );
        }
    }
    // Wrong Q_Key, and a receive that is too short: dropped, and the receive stays posted.
    let receive = pair.b.qp.receive(&[pair.b.part(0, GRH + 10)]);
    for (length, key) in [(10, Q_KEY ^ 1), (11, Q_KEY), (10, Q_KEY)] {
        let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, length));
        request.to = Some(address(&pair.b.node, pair.b.qp.number, key));
        let send = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::Send, send);
        if (length, key) != (10, Q_KEY) {
            pair.b.qp.silent();
        }
    }
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, GRH + 10);
    // Longer than the MTU: refused by the requester.
    let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, how.mtu() + 1));
    request.to = Some(address(&pair.b.node, pair.b.qp.number, Q_KEY));
    let send = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(send), 0x01);
    pair.end();
}

#[test]
fn two_queue_pairs_take_receives_from_one_pool_and_its_limit_is_told() {
    let pair = Pair::unconnected(Shape::new(service::RC), Shape::new(service::RC));
    let (mut a, b) = (pair.a, pair.b);
    let mut pool = Srq::rmp(&b.node.hca, b.node.pd, 4).unwrap();
    let shape = Shape {
        srq: Some(pool.number),
        ..Shape::new(service::RC)
    };
    let mut targets = [0, 1].map(|_| QueuePair::create(&b.node, shape).unwrap());
    let mut other = QueuePair::create(&a.node, Shape::new(service::RC)).unwrap();
    connect((&a.node, &a.qp), (&b.node, &targets[0]), &Connection::default());
    connect((&a.node, &other), (&b.node, &targets[1]), &Connection::default());
    let mut armed = false;
    for round in 0..40_u64 {
        if !armed {
            for slot in 0..4 {
                pool.post(&[b.part(slot * 100, 50), b.part(slot * 100 + 50, 50)]);
            }
            pool.arm(&b.node.hca, 2).unwrap();
            assert_eq!(pool.limit(&b.node.hca), Ok(2));
            armed = true;
        }
        let length = 1 + (round as usize * 7) % 100;
        let data = pattern(round, length);
        a.memory.write(0, &data);
        let request = Request::new(WqeOpcode::Send, a.data(0, length));
        let (sender, target) = if round % 3 == 0 {
            (&mut other, &mut targets[1])
        } else {
            (&mut a.qp, &mut targets[0])
        };
        let send = sender.post(&request);
        sender.sent(WqeOpcode::Send, send);
        // Posted in ring order, so they are consumed in it.
        let slot = round % 16;
        target.received(CqeOpcode::ResponderSend, slot as u16, length);
        assert!(b.memory.read(slot % 4 * 100, length) == data, "{round}");
        match round % 4 {
            2 => {
                // One receive is left.
                let event = b.node.hca.wait_event(EventType::SrqRqLimit);
                assert_eq!(event.data[24..], pool.number.to_be_bytes());
                assert_eq!(pool.limit(&b.node.hca), Ok(0), "the event disarms itself");
            }
            3 => armed = false,
            _ => assert!(b.node.hca.events.lock().poll().is_none(), "no event yet"),
        }
    }
    // In error, receives of the RMP stay posted, and an event reports that no more are consumed.
    pool.post(&[b.part(0, 100)]);
    targets[0].fail(&b.node).unwrap();
    let event = b.node.hca.wait_event(EventType::SrqLastWqe);
    assert_eq!(event.data[24..], targets[0].number.to_be_bytes());
    targets[0].silent();
    for target in &targets {
        target.destroy(&b.node).unwrap();
    }
    other.destroy(&a.node).unwrap();
    pool.destroy(&b.node.hca).unwrap();
    Pair { a, b, wire: pair.wire }.end();
}

#[test]
fn a_guest_talks_to_itself() {
    let pair = Pair::unconnected(Shape::new(service::RC), Shape::new(service::RC));
    let (mut a, b) = (pair.a, pair.b);
    let mut second = QueuePair::create(&a.node, Shape::new(service::RC)).unwrap();
    let how = Connection::default();
    connect((&a.node, &a.qp), (&a.node, &second), &how);
    for length in [1, 1024, 5000, 1 << 20] {
        let data = pattern(length as u64, length);
        a.memory.write(0, &data);
        let receive = second.receive(&[a.part(1 << 20, length)]);
        let send = a.qp.post(&Request::new(WqeOpcode::Send, a.data(0, length)));
        second.received(CqeOpcode::ResponderSend, receive, length);
        a.qp.sent(WqeOpcode::Send, send);
        assert!(a.memory.read(1 << 20, length) == data);
        let request = Request::remote(
            WqeOpcode::RdmaRead,
            a.data(2 << 20, length),
            a.memory.at(1 << 20),
            a.memory.key,
        );
        let read = second.post(&request);
        second.sent(WqeOpcode::RdmaRead, read);
        assert!(a.memory.read(2 << 20, length) == data);
    }
    second.destroy(&a.node).unwrap();
    assert!(pair.wire.seen().is_empty(), "nothing of it is on the wire");
    Pair { a, b, wire: pair.wire }.end();
}
