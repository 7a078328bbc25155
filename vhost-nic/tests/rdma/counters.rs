//! Queue counters: every event of a connection is counted.

use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::steering::TrafficCounter;
use mlx5_prm::vport::{QueryQCounterIn, QueryQCounterOut, QueryVportCounterIn, QueryVportCounterOut};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::netdev::{alloc_queue_counters, dealloc_queue_counters};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, Request, Shape, connect, service};
use mlx5_test_driver::wait::eventually;
use vhost_nic::roce::opcode::{Operation, Position};

use crate::pair::{Pair, pattern};
use crate::wire::{Fate, Kind};

/// Counter set of both guests.
const SET: u8 = 1;
/// Bytes of a message of three packets.
const LONG: usize = 3000;

/// Connects two guests whose queue pairs have a counter set, and calls `act`.
fn counted(how: Connection, act: impl FnOnce(&mut Pair)) {
    counted_as(service::RC, how, act);
}

/// Does the same as [`counted`] with another service.
pub fn counted_as(service: u8, how: Connection, act: impl FnOnce(&mut Pair)) {
    let shape = Shape::new(service);
    let mut pair = Pair::unconnected(shape, shape);
    for node in [&pair.a.node, &pair.b.node] {
        assert_eq!(alloc_queue_counters(&node.hca).unwrap(), SET);
    }
    let how = Connection { counters: SET, ..how };
    connect((&pair.a.node, &pair.a.qp), (&pair.b.node, &pair.b.qp), &how);
    act(&mut pair);
    pair.wire.calm();
    for node in [&pair.a.node, &pair.b.node] {
        dealloc_queue_counters(&node.hca, SET).unwrap();
    }
    pair.end();
}

/// Queries a guest's counter set, and clears it with `clear`.
pub fn query(node: &Node, clear: bool) -> QueryQCounterOut {
    let mut input = QueryQCounterIn::default();
    input.set_counter_set_id(SET);
    input.set_clear(clear);
    node.hca.commands.call(Opcode::QUERY_Q_COUNTER, &input).unwrap()
}

/// Checks the given counters, and that all others are zero.
macro_rules! expect {
    ($node:expr, $($field:ident = $value:expr),* $(,)?) => {
        let mut expected = QueryQCounterOut::default();
        pastey::paste! { $(expected.[<set_ $field>]($value);)* }
        assert_eq!(query($node, false), expected);
    };
}

fn expect_nothing(node: &Node) {
    assert_eq!(query(node, false), QueryQCounterOut::default());
}

fn write(pair: &Pair, length: usize) -> Request {
    pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, length), 0)
}

fn from_a(kind: &Kind) -> bool {
    kind.forth
}

#[test]
fn requests_are_counted_where_they_arrive() {
    counted(Connection::default(), |pair| {
        pair.a.memory.write(0, &pattern(1, LONG));
        for length in [8, LONG, 0] {
            let counter = pair.a.qp.post(&write(pair, length));
            pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
        }
        for length in [1, LONG] {
            let counter = pair
                .a
                .qp
                .post(&pair.request(WqeOpcode::RdmaRead, pair.a.data(8192, length), 0));
            pair.a.qp.sent(WqeOpcode::RdmaRead, counter);
        }
        let mut atomic = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 8), 64);
        atomic.operands = Some((1, 0));
        let counter = pair.a.qp.post(&atomic);
        pair.a.qp.sent(WqeOpcode::AtomicFetchAdd, counter);
        expect!(
            &pair.b.node,
            rx_write_requests = 3,
            rx_read_requests = 2,
            rx_atomic_requests = 1
        );
        expect_nothing(&pair.a.node);
        // Cleared counters start again from zero.
        assert_eq!(query(&pair.b.node, true).rx_write_requests(), 3);
        expect_nothing(&pair.b.node);
    });
}

#[test]
fn a_gap_is_counted_on_both_sides() {
    counted(Connection::default(), |pair| {
        pair.wire.strike(1, Fate::Drop, from_a);
        let counter = pair.a.qp.post(&write(pair, LONG));
        pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
        expect!(&pair.b.node, rx_write_requests = 1, out_of_sequence = 1);
        expect!(&pair.a.node, packet_seq_err = 1);
    });
}

#[test]
fn a_request_that_comes_twice_is_counted() {
    counted(Connection::default(), |pair| {
        pair.wire.strike(0, Fate::Duplicate, from_a);
        let counter = pair.a.qp.post(&write(pair, 8));
        pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
        eventually("the duplicate", || query(&pair.b.node, false).duplicate_request() > 0);
        expect!(&pair.b.node, rx_write_requests = 1, duplicate_request = 1);
        expect_nothing(&pair.a.node);
    });
}

#[test]
fn an_acknowledgement_that_is_lost_is_a_timeout() {
    counted(Connection::default(), |pair| {
        pair.wire.strike(0, Fate::Drop, |kind| !kind.forth);
        let counter = pair.a.qp.post(&write(pair, 8));
        pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
        expect!(&pair.b.node, rx_write_requests = 1, duplicate_request = 1);
        expect!(&pair.a.node, local_ack_timeout_err = 1);
    });
}

#[test]
fn an_answer_that_is_missing_is_an_implied_refusal() {
    counted(Connection::default(), |pair| {
        pair.wire.strike(0, Fate::Drop, |kind| {
            kind.operation == Operation::ReadResponse && kind.position == Position::Middle
        });
        let counter = pair
            .a
            .qp
            .post(&pair.request(WqeOpcode::RdmaRead, pair.a.data(0, LONG), 0));
        pair.a.qp.sent(WqeOpcode::RdmaRead, counter);
        expect!(&pair.b.node, rx_read_requests = 1, duplicate_request = 1);
        expect!(&pair.a.node, implied_nak_seq_err = 1);
    });
}

#[test]
fn a_receive_that_is_missing_is_counted_on_both_sides() {
    counted(Connection::default(), |pair| {
        let counter = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
        eventually("an RNR NAK", || query(&pair.a.node, false).rnr_nak_retry_err() > 0);
        let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
        pair.a.qp.sent(WqeOpcode::Send, counter);
        pair.b.qp.received(CqeOpcode::ResponderSend, receive, 8);
        let attempts = query(&pair.a.node, false).rnr_nak_retry_err();
        expect!(&pair.a.node, rnr_nak_retry_err = attempts);
        expect!(&pair.b.node, out_of_buffer = attempts);
    });
}

#[test]
fn attempts_that_are_in_vain_are_counted_and_their_end() {
    let how = Connection {
        rnr_retry: 2,
        retry_count: 2,
        ..Connection::default()
    };
    counted(how, |pair| {
        let counter = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
        assert_eq!(pair.a.qp.send_error(counter), 0x16);
        expect!(
            &pair.a.node,
            rnr_nak_retry_err = 2,
            req_rnr_retries_exceeded = 1,
            req_cqe_error = 1
        );
        expect!(&pair.b.node, out_of_buffer = 3);
    });
    counted(how, |pair| {
        pair.wire.judge(|_| Fate::Drop);
        let first = pair.a.qp.put(&write(pair, 8));
        let second = pair.a.qp.put(&write(pair, 8));
        pair.a.qp.ring();
        assert_eq!(pair.a.qp.send_error(first), 0x15);
        assert_eq!(pair.a.qp.send_error(second), 0x05);
        expect!(
            &pair.a.node,
            local_ack_timeout_err = 2,
            req_transport_retries_exceeded = 1,
            req_cqe_flush_error = 1,
            req_cqe_error = 2
        );
        expect_nothing(&pair.b.node);
    });
}

#[test]
fn errors_are_counted_by_what_they_are() {
    // Errors of the requester.
    counted(Connection::default(), |pair| {
        let (address, length, key) = pair.a.part(0, 8);
        let bad = Request::new(WqeOpcode::Send, vec![Data::Memory((address, length, key ^ 1))]);
        let counter = pair.a.qp.post(&bad);
        assert_eq!(pair.a.qp.send_error(counter), 0x04);
        expect!(&pair.a.node, req_local_protection = 1, req_cqe_error = 1);
        expect_nothing(&pair.b.node);
    });
    // Refusals by the responder.
    counted(Connection::default(), |pair| {
        let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
        let mut request = write(pair, 8);
        request.remote = request.remote.map(|(address, key)| (address, key ^ 1));
        let counter = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(counter), 0x13);
        assert_eq!(pair.b.qp.receive_error(receive), 0x05);
        expect!(&pair.a.node, req_remote_access_errors = 1, req_cqe_error = 1);
        expect!(
            &pair.b.node,
            rx_write_requests = 1,
            resp_remote_access_errors = 1,
            resp_cqe_flush_error = 1,
            resp_cqe_error = 1
        );
    });
    let how = Connection {
        access: (false, false, false),
        ..Connection::default()
    };
    counted(how, |pair| {
        let counter = pair.a.qp.post(&write(pair, 8));
        assert_eq!(pair.a.qp.send_error(counter), 0x12);
        expect!(&pair.a.node, req_remote_invalid_request = 1, req_cqe_error = 1);
        expect!(&pair.b.node, rx_write_requests = 1, resp_remote_invalid_request = 1);
    });
    // Requests that the responder cannot execute.
    counted(Connection::default(), |pair| {
        let receive = pair.b.qp.receive(&[pair.b.part(0, 7)]);
        let counter = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
        assert_eq!(pair.a.qp.send_error(counter), 0x12);
        assert_eq!(pair.b.qp.receive_error(receive), 0x01);
        expect!(&pair.a.node, req_remote_invalid_request = 1, req_cqe_error = 1);
        expect!(&pair.b.node, resp_local_length_error = 1, resp_cqe_error = 1);
    });
    counted(Connection::default(), |pair| {
        let (address, length, key) = pair.b.part(0, 8);
        let receive = pair.b.qp.receive(&[(address, length, key ^ 1)]);
        let counter = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
        assert_eq!(pair.a.qp.send_error(counter), 0x14);
        assert_eq!(pair.b.qp.receive_error(receive), 0x04);
        expect!(&pair.a.node, req_remote_operation_errors = 1, req_cqe_error = 1);
        expect!(&pair.b.node, resp_local_protection = 1, resp_cqe_error = 1);
    });
}

/// The vport counts RDMA and Ethernet traffic separately.
#[test]
fn the_vport_tells_rdma_from_ethernet() {
    let vport = |node: &Node| -> QueryVportCounterOut {
        let input = QueryVportCounterIn::default();
        node.hca.commands.call(Opcode::QUERY_VPORT_COUNTER, &input).unwrap()
    };
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    pair.a.memory.write(0, &pattern(1, LONG));
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LONG), 0);
    let counter = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
    assert!(pair.b.memory.read(0, LONG) == pattern(1, LONG));
    let (a, b) = (vport(&pair.a.node), vport(&pair.b.node));
    // Three packets of at most 1 KiB: Ethernet, IPv4, UDP, BTH and ICRC; a RETH in the first. The response has an AETH.
    let around = 14 + 20 + 8 + 12 + 4;
    let request = (3, (LONG + 3 * around + 16) as u64);
    let answer = (1, (around + 4) as u64);
    let get = |counter: &TrafficCounter| (counter.packets(), counter.octets());
    assert_eq!(get(a.transmitted_ib_unicast()), request);
    assert_eq!(get(b.received_ib_unicast()), request);
    assert_eq!(get(b.transmitted_ib_unicast()), answer);
    assert_eq!(get(a.received_ib_unicast()), answer);
    for vport in [&a, &b] {
        for none in [
            vport.transmitted_eth_unicast(),
            vport.received_eth_unicast(),
            vport.transmitted_ib_multicast(),
            vport.received_ib_multicast(),
        ] {
            assert_eq!(get(none), (0, 0));
        }
    }
    pair.end();
}
