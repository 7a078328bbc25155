//! Lost, duplicated, late and corrupted packets: data intact, atomics executed once, completions exact.

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::cq::error_of;
use mlx5_test_driver::qp::{Connection, Request, Shape, service};
use mlx5_test_driver::wait::eventually;
use vhost_nic::roce::opcode::{Operation, Position};

use crate::pair::{Pair, pattern};
use crate::wire::{Fate, Kind};

/// Log2 of outstanding reads and atomics: few, so that losses occur between them.
const DEPTH: u8 = 3;
/// Bytes of each message: five packets.
const LENGTH: usize = 5000;

/// Posts one message of each kind with one doorbell, and checks memory and completions on both sides.
pub fn everything_once(pair: &mut Pair, seed: u64) {
    let (sent, written, read) = (
        pattern(seed, LENGTH),
        pattern(seed + 1, LENGTH),
        pattern(seed + 2, LENGTH),
    );
    let (a, b) = (&pair.a, &pair.b);
    a.memory.write(0, &sent);
    a.memory.write(10_000, &written);
    a.memory.write(20_000, &[0; LENGTH]);
    a.memory.write(30_000, &[0; 16]);
    b.memory.write(0, &[0; 3 * 10_000]);
    b.memory.write(20_000, &read);
    b.memory.write(30_000, &7_u64.to_le_bytes());
    let silent = ControlSegment::SOLICITED;
    let send = Request::new(WqeOpcode::Send, a.data(0, LENGTH));
    let short = Request {
        immediate: 0xaabb_ccdd,
        ..Request::new(WqeOpcode::SendImmediate, a.data(0, 100))
    };
    let write = Request {
        flags: silent,
        ..pair.request(WqeOpcode::RdmaWrite, a.data(10_000, LENGTH), 10_000)
    };
    let read_request = pair.request(WqeOpcode::RdmaRead, a.data(20_000, LENGTH), 20_000);
    let add = Request {
        operands: Some((5, 0)),
        ..pair.request(WqeOpcode::AtomicFetchAdd, a.data(30_000, 8), 30_000)
    };
    let swap = Request {
        operands: Some((1000, 12)),
        ..pair.request(WqeOpcode::AtomicCompareSwap, a.data(30_008, 8), 30_000)
    };
    let into = pair.b.part(0, LENGTH);
    let first = pair.b.qp.receive(&[into]);
    let into = pair.b.part(40_000, 100);
    let second = pair.b.qp.receive(&[into]);
    let qp = &mut pair.a.qp;
    let posted = [&send, &write, &read_request, &add, &swap, &short].map(|request| (request.opcode, qp.put(request)));
    qp.ring();
    for (opcode, counter) in posted {
        if opcode != WqeOpcode::RdmaWrite {
            qp.sent(opcode, counter);
        }
    }
    pair.b.qp.received(CqeOpcode::ResponderSend, first, LENGTH);
    let cqe = pair.b.qp.received(CqeOpcode::ResponderSendImmediate, second, 100);
    assert_eq!(cqe.immediate.get(), 0xaabb_ccdd);
    assert!(pair.b.memory.read(0, LENGTH) == sent, "the send");
    assert!(pair.b.memory.read(10_000, LENGTH) == written, "the write");
    assert!(pair.a.memory.read(20_000, LENGTH) == read, "the read");
    assert!(pair.b.memory.read(40_000, 100) == sent[..100], "the short send");
    assert_eq!(
        pair.b.memory.read(30_000, 8),
        1000_u64.to_le_bytes(),
        "the atomics, once each"
    );
    assert_eq!(pair.a.memory.read(30_000, 8), 7_u64.to_le_bytes());
    assert_eq!(pair.a.memory.read(30_008, 8), 12_u64.to_le_bytes());
    pair.a.qp.silent();
    pair.b.qp.silent();
}

fn pair() -> Pair {
    let how = Connection {
        log_depth: DEPTH,
        ..Connection::default()
    };
    Pair::new(Shape::new(service::RC), &how)
}

/// The packets of a run without faults.
fn kinds() -> Vec<Kind> {
    let mut pair = pair();
    everything_once(&mut pair, 1);
    let kinds = pair.wire.seen();
    pair.end();
    kinds
}

fn each_packet_once(fate: Fate) {
    let kinds = kinds();
    assert!(kinds.len() > 20, "{kinds:?}");
    let mut pair = pair();
    for nth in 0..kinds.len() {
        pair.wire.strike(nth, fate, |_| true);
        everything_once(&mut pair, nth as u64);
        pair.wire.calm();
        // A delayed last packet is delivered in the next round.
    }
    pair.end();
}

#[test]
fn each_packet_can_be_lost_once() {
    each_packet_once(Fate::Drop);
}

#[test]
fn each_packet_can_be_damaged_once() {
    each_packet_once(Fate::Corrupt);
}

#[test]
fn each_packet_can_come_twice() {
    each_packet_once(Fate::Duplicate);
}

#[test]
fn each_packet_can_come_late() {
    each_packet_once(Fate::Delay);
}

#[test]
fn each_class_of_packets_is_on_the_wire() {
    let kinds = kinds();
    use Operation::*;
    for (operation, position, forth) in [
        (Send, Position::First, true),
        (Send, Position::Middle, true),
        (Send, Position::Last, true),
        (Send, Position::Only, true),
        (Write, Position::Middle, true),
        (ReadRequest, Position::Only, true),
        (ReadResponse, Position::First, false),
        (ReadResponse, Position::Middle, false),
        (ReadResponse, Position::Last, false),
        (FetchAdd, Position::Only, true),
        (CompareSwap, Position::Only, true),
        (AtomicAcknowledge, Position::Only, false),
        (Acknowledge, Position::Only, false),
    ] {
        assert!(
            kinds
                .iter()
                .any(|kind| (kind.operation, kind.position, kind.forth) == (operation, position, forth)),
            "{operation:?} {position:?}"
        );
    }
}

#[test]
fn sequence_numbers_wrap() {
    let how = Connection {
        psn: (0xff_fffe, 0xff_fffd),
        log_depth: DEPTH,
        ..Connection::default()
    };
    for nth in 0..12 {
        let mut pair = Pair::new(Shape::new(service::RC), &how);
        pair.wire.strike(nth, Fate::Drop, |_| true);
        everything_once(&mut pair, 3);
        everything_once(&mut pair, 4);
        pair.end();
    }
}

#[test]
fn a_read_of_many_packets_survives_many_losses() {
    let mut pair = pair();
    let length = 1 << 20;
    let data = pattern(5, length);
    pair.b.memory.write(0, &data);
    let mut count = 0_u32;
    pair.wire.judge(move |_| {
        count += 1;
        if count.is_multiple_of(17) {
            Fate::Drop
        } else {
            Fate::Pass
        }
    });
    let read = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaRead, pair.a.data(0, length), 0));
    pair.a.qp.sent(WqeOpcode::RdmaRead, read);
    assert!(pair.a.memory.read(0, length) == data);
    pair.end();
}

#[test]
fn a_side_that_never_answers_is_given_up() {
    for (retry_count, attempts) in [(0, 1), (1, 2), (3, 4)] {
        let how = Connection {
            retry_count,
            ..Connection::default()
        };
        let mut pair = Pair::new(Shape::new(service::RC), &how);
        pair.wire.judge(|kind| if kind.forth { Fate::Drop } else { Fate::Pass });
        let first = pair.a.qp.put(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
        let second = pair.a.qp.put(&pair.request(WqeOpcode::RdmaRead, pair.a.data(0, 8), 0));
        pair.a.qp.ring();
        assert_eq!(pair.a.qp.send_error(first), 0x15);
        assert_eq!(pair.a.qp.send_error(second), 0x05);
        let seen = pair.wire.seen();
        let writes = seen.iter().filter(|kind| kind.operation == Operation::Write).count();
        assert_eq!(writes, attempts, "{seen:?}");
        assert_eq!(pair.a.qp.query(&pair.a.node).unwrap().state(), 6);
        pair.end();
    }
}

#[test]
fn a_packet_that_never_arrives_among_others_that_do_is_given_up() {
    let mut pair = pair();
    pair.wire.judge(|kind| match (kind.operation, kind.position) {
        (Operation::Write, Position::Middle) | (Operation::ReadResponse, Position::First) => Fate::Drop,
        _ => Fate::Pass,
    });
    let write = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LENGTH), 0));
    assert_eq!(pair.a.qp.send_error(write), 0x15);
    pair.end();
    let mut pair = self::pair();
    pair.wire.judge(|kind| match kind.position {
        Position::First => Fate::Drop,
        _ => Fate::Pass,
    });
    let read = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaRead, pair.a.data(0, LENGTH), 0));
    assert_eq!(pair.a.qp.send_error(read), 0x15);
    pair.end();
}

#[test]
fn receivers_that_are_not_ready_are_asked_as_often_as_the_connection_says() {
    for (rnr_retry, attempts) in [(0, 1), (1, 2), (3, 4)] {
        let how = Connection {
            rnr_retry,
            ..Connection::default()
        };
        let mut pair = Pair::new(Shape::new(service::RC), &how);
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
        assert_eq!(pair.a.qp.send_error(send), 0x16);
        let seen = pair.wire.seen();
        let first = seen
            .iter()
            .filter(|kind| kind.forth && kind.position == Position::First)
            .count();
        assert_eq!(first, attempts, "{seen:?}");
        pair.end();
    }
}

#[test]
fn a_receive_posted_during_the_wait_takes_the_message() {
    for rnr_retry in [1, 7] {
        let how = Connection {
            rnr_retry,
            // 40.96 ms
            min_rnr_nak: 22,
            ..Connection::default()
        };
        let mut pair = Pair::new(Shape::new(service::RC), &how);
        let data = pattern(8, LENGTH);
        pair.a.memory.write(0, &data);
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
        eventually("an RNR NAK", || {
            pair.wire
                .seen()
                .iter()
                .any(|kind| !kind.forth && kind.operation == Operation::Acknowledge)
        });
        let receive = pair.b.qp.receive(&[pair.b.part(3, LENGTH)]);
        pair.b.qp.received(CqeOpcode::ResponderSend, receive, LENGTH);
        pair.a.qp.sent(WqeOpcode::Send, send);
        assert!(pair.b.memory.read(3, LENGTH) == data);
        // A write with immediate consumes a receive as well, with its last packet.
        let mut request = pair.request(WqeOpcode::RdmaWriteImmediate, pair.a.data(0, LENGTH), 9000);
        request.immediate = 3;
        pair.wire.seen();
        let write = pair.a.qp.post(&request);
        eventually("an RNR NAK", || pair.wire.seen().iter().any(|kind| !kind.forth));
        let receive = pair.b.qp.receive(&[]);
        pair.b.qp.received(CqeOpcode::ResponderWriteImmediate, receive, LENGTH);
        pair.a.qp.sent(WqeOpcode::RdmaWriteImmediate, write);
        assert!(pair.b.memory.read(9000, LENGTH) == data);
        pair.end();
    }
}

#[test]
fn unreliable_connections_lose_whole_messages_and_keep_their_receives() {
    let how = Connection::default();
    for nth in 0..5 {
        let mut pair = Pair::new(Shape::new(service::UC), &how);
        let data = pattern(8, LENGTH);
        pair.a.memory.write(0, &data);
        let receive = pair.b.qp.receive(&[pair.b.part(3, LENGTH)]);
        pair.wire.strike(nth, Fate::Drop, |_| true);
        let lost = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
        pair.a.qp.sent(WqeOpcode::Send, lost);
        pair.b.qp.silent();
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
        pair.b.qp.received(CqeOpcode::ResponderSend, receive, LENGTH);
        pair.a.qp.sent(WqeOpcode::Send, send);
        assert!(pair.b.memory.read(3, LENGTH) == data);
        assert!(pair.a.qp.send_cq.poll().as_ref().and_then(error_of).is_none());
        pair.end();
    }
}
