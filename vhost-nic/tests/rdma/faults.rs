//! Faults of a plan, as queue pairs see them: data intact, or the completion that hardware gives.

use std::sync::Arc;

use mlx5_prm::queue_entry::{CqeOpcode, EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::{error_of, vendor_error_of};
use mlx5_test_driver::qp::{Connection, Data, Request, Shape, service};
use mlx5_test_driver::wait::eventually;
use vhost_daemon::fault::Plan;
use vhost_daemon::trace::{Event, start_flight_recorder};
use vhost_nic::net::Switch;

use crate::loss::everything_once;
use crate::pair::{Pair, hears, is_in_error, pattern};
use crate::trace::{name, recorded};

const LENGTH: usize = 5000;

fn faulty(plan: &str) -> (Pair, impl Fn(&str), impl Fn() -> Vec<u64>) {
    let (pair, apply, strikes) = with_switches([Switch::new(), Switch::new()]);
    apply(plan);
    (pair, apply, strikes)
}

/// Guests at the same switch.
fn faulty_neighbours() -> (Pair, impl Fn(&str), impl Fn() -> Vec<u64>) {
    let switch = Switch::new();
    with_switches([switch.clone(), switch])
}

fn with_switches(switches: [Arc<Switch>; 2]) -> (Pair, impl Fn(&str), impl Fn() -> Vec<u64>) {
    // A depth that lets losses occur between reads.
    let how = Connection {
        log_depth: 3,
        ..Connection::default()
    };
    connected(switches, how)
}

fn connected(switches: [Arc<Switch>; 2], how: Connection) -> (Pair, impl Fn(&str), impl Fn() -> Vec<u64>) {
    let (pair, faults) = Pair::faulty(switches, Shape::new(service::RC), &how);
    let set = faults.clone();
    let apply = move |plan: &str| set.apply(Plan::from_toml(plan).unwrap()).unwrap();
    let strikes = move || faults.report().iter().map(|rule| rule.strikes).collect();
    (pair, apply, strikes)
}

/// Runs 20 rounds of every operation under a plan of one rule; returns its strikes.
fn under(plan: &str) -> u64 {
    let (mut pair, _, strikes) = faulty(plan);
    for round in 0..20 {
        everything_once(&mut pair, round);
    }
    let strikes = strikes()[0];
    pair.end();
    strikes
}

#[test]
fn lost_packets_are_sent_again() {
    let plan = "seed = 1\n[[fault]]\nkind = \"frame_loss\"\nprobability = 0.02\nburst = 2";
    assert!(under(plan) > 5);
}

#[test]
fn duplicates_are_executed_once() {
    assert!(under("[[fault]]\nkind = \"frame_duplicate\"\nprobability = 0.3") > 50);
}

#[test]
fn reordered_packets_come_through() {
    let plan = "[[fault]]\nkind = \"frame_reorder\"\nprobability = 0.05\ndistance = 2";
    assert!(under(plan) > 10);
}

#[test]
fn late_packets_come_through() {
    let plan = "[[fault]]\nkind = \"frame_delay\"\nprobability = 0.1\ndelay = \"200us\"\njitter = \"1ms\"";
    assert!(under(plan) > 20);
}

#[test]
fn a_slow_wire_comes_through() {
    let plan = "[[fault]]\nkind = \"frame_rate\"\nguest = \"nic2\"\nmbit_per_second = 1000\nqueue = \"50ms\"";
    assert!(under(plan) > 400);
}

#[test]
fn packets_with_a_wrong_icrc_are_dropped_and_sent_again() {
    let plan = "[[fault]]\nkind = \"frame_corrupt\"\nguest = \"nic2\"\ndirection = \"in\"\nprobability = 0.05";
    let (mut pair, _, strikes) = faulty(plan);
    for round in 0..20 {
        everything_once(&mut pair, round);
    }
    let struck = strikes()[0];
    assert!(struck > 5, "{struck} packets");
    pair.end();
}

#[test]
fn a_fault_can_be_for_one_opcode_of_one_direction() {
    // RC Acknowledge, on its way to the requester: the request is acknowledged again after a timeout.
    let plan = "[[fault]]\nkind = \"frame_loss\"\nguest = \"nic1\"\ndirection = \"in\"\nopcode = 0x11\ncount = 1";
    let (mut pair, _, strikes) = faulty(plan);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LENGTH), 0);
    let counter = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
    assert_eq!(strikes(), [1]);
    let again = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, again);
    assert_eq!(strikes(), [1]);
    pair.end();
}

#[test]
fn a_partition_ends_in_the_retry_error() {
    let (mut pair, apply, _) = faulty("[[fault]]\nkind = \"frame_loss\"\nguest = \"nic2\"");
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let counter = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(counter), Syndrome::TransportRetryExceeded as u8);
    apply("");
    pair.end();
}

#[test]
fn a_receiver_that_is_not_ready_gets_the_message_again() {
    let (mut pair, _, strikes) = faulty("[[fault]]\nkind = \"rnr_nak\"\nguest = \"nic2\"\ntimer = 1\ncount = 3");
    let data = pattern(1, LENGTH);
    pair.a.memory.write(0, &data);
    let receive = pair.b.qp.receive(&[pair.b.part(0, LENGTH)]);
    let counter = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, LENGTH)));
    pair.a.qp.sent(WqeOpcode::Send, counter);
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, LENGTH);
    assert!(pair.b.memory.read(0, LENGTH) == data);
    // The completion follows the fourth acknowledgement.
    assert_eq!(strikes(), [3]);
    pair.b.qp.silent();
    pair.end();
}

#[test]
fn a_receiver_that_is_never_ready_ends_in_the_rnr_error() {
    let how = Connection {
        rnr_retry: 2,
        ..Connection::default()
    };
    let (mut pair, apply, strikes) = connected([Switch::new(), Switch::new()], how);
    apply("[[fault]]\nkind = \"rnr_nak\"\nguest = \"nic2\"\ntimer = 1");
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let counter = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(counter), Syndrome::RnrRetryExceeded as u8);
    assert_eq!(strikes(), [3]);
    pair.end();
}

#[test]
fn a_lost_cqe_leaves_its_place_to_the_next() {
    let plan = "[[fault]]\nkind = \"cqe_lost\"\nguest = \"nic1\"\ncount = 1";
    let (mut pair, _, strikes) = faulty(plan);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    pair.a.qp.post(&request);
    let second = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, second);
    pair.a.qp.silent();
    assert_eq!(strikes(), [1]);
    pair.end();
}

#[test]
fn a_late_cqe_comes_behind_the_next() {
    let plan = "[[fault]]\nkind = \"cqe_late\"\nguest = \"nic1\"\ncount = 1\ndelay = \"50ms\"";
    let (mut pair, ..) = faulty(plan);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let first = pair.a.qp.post(&request);
    let second = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, second);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, first);
    pair.a.qp.silent();
    pair.end();
}

#[test]
fn a_cqe_with_any_syndrome_is_followed_by_the_error_state() {
    let plan = "[[fault]]\nkind = \"cqe_error\"\nguest = \"nic1\"\nsyndrome = 0x22\nvendor_syndrome = 0x68\ncount = 1";
    let (mut pair, ..) = faulty(plan);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let counter = pair.a.qp.post(&request);
    let cqe = pair.a.qp.send_cq.wait();
    assert_eq!(error_of(&cqe), Some((Syndrome::RemoteAborted as u8, counter)));
    assert_eq!(vendor_error_of(&cqe), 0x68);
    let error = 6;
    eventually("the error state", || {
        pair.a.qp.query(&pair.a.node).unwrap().state() == error
    });
    let flushed = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(flushed), Syndrome::WrFlush as u8);
    pair.end();
}

#[test]
fn a_cq_overruns_with_room_in_it() {
    let (mut pair, ..) = faulty("[[fault]]\nkind = \"cq_overrun\"\nguest = \"nic1\"\ncount = 1");
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    pair.a.qp.post(&request);
    let event = pair.a.node.hca.wait_event(EventType::CqError);
    let number = pair.a.qp.send_cq.number;
    assert_eq!(event.data[..4], number.to_be_bytes());
    assert_eq!(event.data[11], 1);
    // The queue pair whose completion it was.
    hears(&pair.a.node, EventType::WqCatastrophicError, pair.a.qp.number);
    is_in_error(&pair.a.node, &pair.a.qp);
    pair.a.qp.silent();
    pair.end();
}

/// A request of `LENGTH` bytes to the beginning of the responder's region.
fn write_or_send(pair: &Pair, opcode: WqeOpcode) -> Request {
    let data = pair.a.data(0, LENGTH);
    match opcode {
        WqeOpcode::RdmaWrite => pair.request(opcode, data, 0),
        _ => Request::new(opcode, data),
    }
}

#[test]
fn a_payload_that_the_sender_cannot_read_does_not_hurt_the_receiver() {
    // Over one switch: the receiver copies from the sender's memory.
    let (mut pair, apply, strikes) = faulty_neighbours();
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::Send] {
        apply("[[fault]]\nkind = \"dma_failed\"\nguest = \"nic1\"\npurpose = \"gather\"\ncount = 1");
        let data = pattern(1, LENGTH);
        pair.a.memory.write(0, &data);
        let into = pair.b.part(0, LENGTH);
        let receive = (opcode == WqeOpcode::Send).then(|| pair.b.qp.receive(&[into]));
        let request = write_or_send(&pair, opcode);
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(opcode, counter);
        if let Some(receive) = receive {
            pair.b.qp.received(CqeOpcode::ResponderSend, receive, LENGTH);
        }
        assert!(pair.b.memory.read(0, LENGTH) == data);
        assert_eq!(strikes(), [1]);
    }
    pair.end();
}

#[test]
fn a_response_that_the_responder_cannot_read_does_not_hurt_the_requester() {
    let (mut pair, apply, strikes) = faulty_neighbours();
    apply("[[fault]]\nkind = \"dma_failed\"\nguest = \"nic2\"\npurpose = \"gather\"\ncount = 1");
    let data = pattern(1, LENGTH);
    pair.b.memory.write(0, &data);
    let request = pair.request(WqeOpcode::RdmaRead, pair.a.data(0, LENGTH), 0);
    let counter = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaRead, counter);
    assert!(pair.a.memory.read(0, LENGTH) == data);
    assert_eq!(strikes(), [1]);
    pair.end();
}

#[test]
fn memory_that_the_receiver_cannot_write_is_an_operational_error() {
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::Send] {
        let (mut pair, apply, _) = faulty_neighbours();
        apply("[[fault]]\nkind = \"dma_failed\"\nguest = \"nic2\"\npurpose = \"scatter\"");
        let into = pair.b.part(0, LENGTH);
        let receive = (opcode == WqeOpcode::Send).then(|| pair.b.qp.receive(&[into]));
        let request = write_or_send(&pair, opcode);
        let counter = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(counter), Syndrome::RemoteOperation as u8);
        if let Some(receive) = receive {
            assert_eq!(pair.b.qp.receive_error(receive), Syndrome::LocalProtection as u8);
        }
        pair.end();
    }
}

#[test]
fn slow_accesses_change_nothing_but_the_time() {
    let plan = "[[fault]]\nkind = \"dma_slow\"\naccess = \"write\"\ndelay = \"100us\"\nprobability = 0.2";
    assert!(under(plan) > 20);
}

#[test]
fn a_queue_pair_fails_at_a_chosen_completion() {
    let (mut pair, apply, strikes) = faulty("");
    let qpn = pair.a.qp.number;
    apply(&format!(
        "[[fault]]\nkind = \"qp_error\"\nguest = \"nic1\"\non = \"cqe\"\nqp = {qpn}\nskip = 2\ncount = 1"
    ));
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    for _ in 0..2 {
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
    }
    assert_eq!(
        (strikes(), pair.a.qp.query(&pair.a.node).unwrap().state()),
        (vec![0], 3)
    );
    let counter = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
    eventually("the error state", || {
        pair.a.qp.query(&pair.a.node).unwrap().state() == 6
    });
    pair.end();
}

#[test]
fn the_nth_access_to_send_wqes_is_the_read_of_the_nth() {
    let (mut pair, apply, strikes) = faulty("");
    apply("[[fault]]\nkind = \"dma_failed\"\nguest = \"nic1\"\npurpose = \"send_wqe\"\nskip = 3\ncount = 1");
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    for _ in 0..3 {
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
    }
    assert_eq!(strikes(), [0]);
    let fourth = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(fourth), Syndrome::LocalQpOperation as u8);
    assert_eq!(strikes(), [1]);
    pair.end();
}

#[test]
fn the_flush_goes_on_behind_a_wqe_that_could_not_be_read() {
    // The first access is the fetch, all others those of the flush.
    for failures in [1, 4] {
        let (mut pair, apply, strikes) = faulty("");
        let mut request = pair.request(WqeOpcode::RdmaWrite, Vec::new(), 0);
        request.data = vec![Data::Inline(vec![0; 100])];
        apply(&format!(
            "[[fault]]\nkind = \"dma_failed\"\nguest = \"nic1\"\npurpose = \"send_wqe\"\ncount = {failures}"
        ));
        let counters = [(); 3].map(|()| pair.a.qp.put(&request));
        assert_eq!(counters, [0, 3, 6], "each takes three basic blocks");
        pair.a.qp.ring();
        assert_eq!(pair.a.qp.send_error(0), Syndrome::LocalQpOperation as u8);
        for counter in &counters[1..] {
            assert_eq!(pair.a.qp.send_error(*counter), Syndrome::WrFlush as u8);
        }
        let late = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(late), Syndrome::WrFlush as u8);
        pair.a.qp.silent();
        assert_eq!(strikes(), [failures]);
        pair.end();
    }
}

#[test]
fn the_link_comes_back_and_the_message_with_it() {
    let (mut pair, apply, _) = faulty("");
    apply("[[fault]]\nkind = \"link_flap\"\nguest = \"nic2\"\non = \"frame\"\ndown = \"20ms\"\ncount = 1");
    for round in 0..3 {
        everything_once(&mut pair, round);
    }
    let events = [1, 4].map(|sub_type| {
        let event = pair.b.node.hca.wait_event(EventType::PortChange);
        (event.sub_type, event.data[8]) == (sub_type, 1 << 4)
    });
    assert_eq!(events, [true, true], "down, then active");
    pair.end();
}

#[test]
fn strikes_are_in_the_trace() {
    let (mut pair, ..) = faulty("[[fault]]\nkind = \"cqe_lost\"\nguest = \"nic1\"\ncount = 1");
    start_flight_recorder();
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    pair.a.qp.post(&request);
    let second = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, second);
    let cq = pair.a.qp.send_cq.number;
    let is_strike = |event: &&Event| name(event) == "fault" && (event.guest, event.object) == (1, cq);
    assert_eq!(recorded().events.iter().filter(is_strike).count(), 1);
    pair.end();
}
