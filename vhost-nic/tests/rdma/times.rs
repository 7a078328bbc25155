//! Times of retransmissions against the attributes of the queue pair.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Request, Shape, service};
use parking_lot::Mutex;
use vhost_nic::roce::opcode::Operation;
use vhost_nic::roce::rnr::RnrTimer;

use crate::pair::Pair;
use crate::wire::Fate;

/// Unit of the acknowledgement timeout (IBTA 9.7.6.1.3).
const ACK_TIMEOUT_UNIT: Duration = Duration::from_nanos(4096);
/// Least code of an acknowledgement timeout that is not prolonged.
const LEAST_CODE: u8 = 12;
/// Attempts of each request after the first.
const RETRIES: u8 = 6;

/// Checks that no time is shorter than `wanted`, and the shortest at most a fifth longer: a busy machine may delay any
/// but hardly all.
#[track_caller]
fn check(what: &str, wanted: Duration, times: &[Duration]) {
    let shortest = *times.iter().min().unwrap();
    assert!(shortest >= wanted, "{what}: {times:?} before {wanted:?}");
    assert!(shortest <= wanted * 6 / 5, "{what}: {times:?} after {wanted:?}");
}

/// Times between the attempts at a write of which no packet arrives.
fn between_timeouts(ack_timeout: u8) -> Vec<Duration> {
    let how = Connection {
        ack_timeout,
        retry_count: RETRIES,
        ..Connection::default()
    };
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    let sent = Arc::new(Mutex::new(Vec::new()));
    let attempts = Arc::clone(&sent);
    pair.wire.judge(move |_| {
        attempts.lock().push(Instant::now());
        Fate::Drop
    });
    let write = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
    assert_eq!(pair.a.qp.send_error(write), Syndrome::TransportRetryExceeded as u8);
    pair.end();
    let sent = sent.lock();
    assert_eq!(sent.len(), usize::from(RETRIES) + 1);
    sent.windows(2).map(|attempts| attempts[1] - attempts[0]).collect()
}

/// Times from each RNR NAK to the attempt after it.
fn after_rnr_naks(min_rnr_nak: u8, rnr_retry: u8) -> Vec<Duration> {
    let how = Connection {
        min_rnr_nak,
        rnr_retry,
        ..Connection::default()
    };
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let (times, mut nak) = (Arc::clone(&waits), None);
    pair.wire.judge(move |kind| {
        if kind.operation == Operation::Acknowledge {
            nak = Some(Instant::now());
        } else if let Some(nak) = nak.take() {
            times.lock().push(nak.elapsed());
        }
        Fate::Pass
    });
    let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
    assert_eq!(pair.a.qp.send_error(send), Syndrome::RnrRetryExceeded as u8);
    pair.end();
    let waits = waits.lock();
    assert_eq!(waits.len(), usize::from(rnr_retry));
    waits.clone()
}

#[test]
fn an_acknowledgement_is_awaited_as_long_as_the_queue_pair_says() {
    for code in LEAST_CODE..=15 {
        let wanted = ACK_TIMEOUT_UNIT * (1 << code);
        check(&format!("timeout {code}"), wanted, &between_timeouts(code));
    }
}

#[test]
fn shorter_timeouts_are_the_least_one() {
    for code in [1, LEAST_CODE - 1] {
        let wanted = ACK_TIMEOUT_UNIT * (1 << LEAST_CODE);
        check(&format!("timeout {code}"), wanted, &between_timeouts(code));
    }
}

#[test]
fn a_receiver_that_is_not_ready_is_left_alone_as_long_as_it_says() {
    // 1.28, 10.24, 40.96 and 655.36 ms.
    for (code, retries) in [(14, RETRIES), (20, RETRIES), (24, RETRIES), (0, 1)] {
        let wanted = RnrTimer::new(code).delay();
        check(&format!("RNR timer {code}"), wanted, &after_rnr_naks(code, retries));
    }
}
