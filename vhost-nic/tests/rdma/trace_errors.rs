//! The causes of error CQEs: never the response to an earlier message.

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Data, Request, Shape, service};
use vhost_daemon::trace::{Trace, start_flight_recorder};
use vhost_nic::timeline::NicTimeline;

use crate::pair::Pair;
use crate::trace::{chain, name, recorded};
use crate::wire::Fate;

const A: u16 = 1;
const B: u16 = 2;
/// From the CQE of a good message to its doorbell.
const GOOD: [(&str, u16); 7] = [
    ("cqe", A),
    ("packet_in", A),
    ("packet_out", B),
    ("packet_in", B),
    ("packet_out", A),
    ("wqe", A),
    ("doorbell", A),
];

/// A pair after a message that was acknowledged.
fn pair(how: &Connection) -> Pair {
    start_flight_recorder();
    let mut pair = Pair::new(Shape::new(service::RC), how);
    let write = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let index = pair.a.qp.post(&write);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    pair
}

/// The syndrome of each CQE of a guest with its causes, in order.
fn cqes(trace: &Trace, guest: u16) -> Vec<(u32, Vec<(&'static str, u16)>)> {
    assert_eq!(trace.lost, 0);
    let timeline = NicTimeline::new(trace);
    let events = trace.events.iter().enumerate();
    let cqes = events.filter(|(_, event)| name(event) == "cqe" && event.guest == guest);
    cqes.map(|(index, event)| (event.arguments[3], chain(trace, &timeline, index)))
        .collect()
}

#[test]
fn a_local_error_is_caused_by_its_wqe_and_a_flush_by_the_error_or_the_doorbell() {
    let mut pair = pair(&Connection::default());
    let (address, length, key) = pair.a.part(0, 8);
    let bad = pair.request(WqeOpcode::RdmaWrite, vec![Data::Memory((address, length, key ^ 1))], 0);
    let bad = pair.a.qp.put(&bad);
    let good = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let behind = pair.a.qp.put(&good);
    pair.a.qp.ring();
    assert_eq!(pair.a.qp.send_error(bad), Syndrome::LocalProtection as u8);
    assert_eq!(pair.a.qp.send_error(behind), Syndrome::WrFlush as u8);
    let late = pair.a.qp.post(&good);
    assert_eq!(pair.a.qp.send_error(late), Syndrome::WrFlush as u8);
    pair.end();

    let error = [("cqe", A), ("wqe", A), ("doorbell", A)];
    let flush = [&[("cqe", A)][..], &error].concat();
    let expected = [
        (0, GOOD.to_vec()),
        (Syndrome::LocalProtection as u32, error.to_vec()),
        (Syndrome::WrFlush as u32, flush),
        (Syndrome::WrFlush as u32, [("cqe", A), ("doorbell", A)].to_vec()),
    ];
    assert_eq!(cqes(&recorded(), A), expected);
}

#[test]
fn retries_that_are_exceeded_are_caused_by_the_last_timeout() {
    let how = Connection {
        retry_count: 1,
        ..Connection::default()
    };
    let mut pair = pair(&how);
    pair.wire.judge(|kind| if kind.forth { Fate::Drop } else { Fate::Pass });
    let write = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let index = pair.a.qp.post(&write);
    assert_eq!(pair.a.qp.send_error(index), Syndrome::TransportRetryExceeded as u8);
    pair.end();

    let timeout = ["cqe", "ack_timeout", "timer_expired", "timer_set", "wqe", "doorbell"];
    let expected = [
        (0, GOOD.to_vec()),
        (
            Syndrome::TransportRetryExceeded as u32,
            timeout.map(|name| (name, A)).to_vec(),
        ),
    ];
    let trace = recorded();
    assert_eq!(cqes(&trace, A), expected);
    // The first is retried, the second ends the queue pair.
    let timeouts = trace.events.iter().filter(|event| name(event) == "ack_timeout");
    assert_eq!(timeouts.count(), 2);
}

#[test]
fn a_refused_request_is_caused_by_the_nak_and_the_flush_at_the_responder_by_the_request() {
    let mut pair = pair(&Connection::default());
    let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
    let request = Request::remote(WqeOpcode::RdmaWrite, pair.a.data(0, 8), pair.b.memory.at(0), 0xbad);
    let index = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(index), Syndrome::RemoteAccess as u8);
    assert_eq!(pair.b.qp.receive_error(receive), Syndrome::WrFlush as u8);
    pair.end();

    let trace = recorded();
    let expected = [(0, GOOD.to_vec()), (Syndrome::RemoteAccess as u32, GOOD.to_vec())];
    assert_eq!(cqes(&trace, A), expected);
    let flush = [&[("cqe", B)][..], &GOOD[3..]].concat();
    assert_eq!(cqes(&trace, B), [(Syndrome::WrFlush as u32, flush)]);
}
