//! Doorbell records that cannot be read: the queue goes to the error state, with an event (IBTA 11.6.3.2).

use mlx5_prm::queue_entry::{CqeOpcode, EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Q_KEY, QueuePair, Request, Shape, address, service};
use mlx5_test_driver::srq::Srq;
use vhost_daemon::fault::Plan;
use vhost_nic::net::Switch;

use crate::pair::{Pair, hears, is_in_error, pattern, receives};

const LENGTH: usize = 5000;
/// Two guests at one switch, of which the second receives only, and what puts a plan of `dma_failed` of doorbell
/// records of a guest in force.
fn pair(service: u8) -> (Pair, impl Fn(&str), impl Fn() -> Vec<u64>) {
    let switch = Switch::new();
    let (mut pair, faults) = Pair::faulty([switch.clone(), switch], Shape::new(service), &Connection::default());
    pair.b.qp.reset(&pair.b.node).unwrap();
    receives((&pair.b.node, &pair.b.qp), (&pair.a.node, &pair.a.qp));
    let set = faults.clone();
    let apply = move |rule: &str| {
        let rule = match rule {
            "" => String::new(),
            rule => format!("[[fault]]\nkind = \"dma_failed\"\npurpose = \"doorbell_record\"\n{rule}"),
        };
        set.apply(Plan::from_toml(&rule).unwrap()).unwrap();
    };
    let strikes = move || faults.report().iter().map(|rule| rule.strikes).collect();
    (pair, apply, strikes)
}

#[test]
fn that_of_a_send_queue_is_a_catastrophic_error() {
    let (mut pair, apply, strikes) = pair(service::RC);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let first = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, first);
    apply("guest = \"nic1\"\ncount = 1");
    let second = pair.a.qp.post(&request);
    hears(&pair.a.node, EventType::WqCatastrophicError, pair.a.qp.number);
    assert_eq!(pair.a.qp.send_error(second), Syndrome::WrFlush as u8);
    is_in_error(&pair.a.node, &pair.a.qp);
    assert_eq!(strikes(), [1]);
    pair.a.qp.silent();
    pair.end();
}

#[test]
fn that_of_a_receive_queue_is_a_catastrophic_error_and_an_operational_one_of_the_peer() {
    // One packet, and several that travel as one.
    for length in [8, LENGTH] {
        let (mut pair, apply, strikes) = pair(service::RC);
        let receive = pair.b.qp.receive(&[pair.b.part(0, LENGTH)]);
        apply("guest = \"nic2\"\ncount = 1");
        let counter = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, length)));
        assert_eq!(pair.a.qp.send_error(counter), Syndrome::RemoteOperation as u8);
        hears(&pair.b.node, EventType::WqCatastrophicError, pair.b.qp.number);
        assert_eq!(pair.b.qp.receive_error(receive), Syndrome::WrFlush as u8);
        is_in_error(&pair.b.node, &pair.b.qp);
        assert_eq!(strikes(), [1]);
        pair.end();
    }
}

#[test]
fn a_write_with_immediate_data_needs_a_receive_too() {
    let (mut pair, apply, _) = pair(service::RC);
    pair.b.qp.receive(&[]);
    apply("guest = \"nic2\"\ncount = 1");
    let request = pair.request(WqeOpcode::RdmaWriteImmediate, pair.a.data(0, 8), 0);
    let counter = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(counter), Syndrome::RemoteOperation as u8);
    hears(&pair.b.node, EventType::WqCatastrophicError, pair.b.qp.number);
    pair.end();
}

#[test]
fn those_of_unreliable_services_end_the_receiver_alone() {
    for service in [service::UC, service::UD] {
        let (mut pair, apply, _) = pair(service);
        let receive = pair.b.qp.receive(&[pair.b.part(0, LENGTH)]);
        apply("guest = \"nic2\"\ncount = 1");
        let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, 100));
        if service == service::UD {
            request.to = Some(address(&pair.b.node, pair.b.qp.number, Q_KEY));
        }
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::Send, counter);
        hears(&pair.b.node, EventType::WqCatastrophicError, pair.b.qp.number);
        assert_eq!(pair.b.qp.receive_error(receive), Syndrome::WrFlush as u8);
        is_in_error(&pair.b.node, &pair.b.qp);
        pair.end();
    }
}

#[test]
fn that_of_a_pool_ends_the_pool_and_each_queue_pair_that_takes_from_it() {
    let (pair, apply, strikes) = pair(service::RC);
    let (mut a, b) = (pair.a, pair.b);
    let mut pool = Srq::rmp(&b.node.hca, b.node.pd, 4).unwrap();
    let shape = Shape {
        srq: Some(pool.number),
        ..Shape::new(service::RC)
    };
    let targets = [0, 1].map(|_| QueuePair::create(&b.node, shape).unwrap());
    let mut others = [0, 1].map(|_| QueuePair::create(&a.node, Shape::new(service::RC)).unwrap());
    for (other, target) in others.iter().zip(&targets) {
        other
            .connect(&a.node, &b.node, target.number, &Connection::default())
            .unwrap();
        receives((&b.node, target), (&a.node, other));
    }
    for _ in 0..4 {
        pool.post(&[b.part(0, LENGTH)]);
    }
    assert!(!pool.is_in_error(&b.node.hca).unwrap());
    apply("guest = \"nic2\"\ncount = 1");
    let request = Request::new(WqeOpcode::Send, a.data(0, 8));
    for (other, target) in others.iter_mut().zip(&targets) {
        let counter = other.post(&request);
        assert_eq!(other.send_error(counter), Syndrome::RemoteOperation as u8);
        if target.number == targets[0].number {
            hears(&b.node, EventType::SrqCatastrophicError, pool.number);
        }
        hears(&b.node, EventType::WqCatastrophicError, target.number);
        is_in_error(&b.node, target);
    }
    assert!(pool.is_in_error(&b.node.hca).unwrap());
    assert_eq!(strikes(), [1], "the record is not read any more");
    // Others go on.
    let mut b = b;
    let data = pattern(1, LENGTH);
    a.memory.write(0, &data);
    let receive = b.qp.receive(&[b.part(0, LENGTH)]);
    let counter = a.qp.post(&Request::new(WqeOpcode::Send, a.data(0, LENGTH)));
    a.qp.sent(WqeOpcode::Send, counter);
    b.qp.received(CqeOpcode::ResponderSend, receive, LENGTH);
    assert!(b.memory.read(0, LENGTH) == data);
    for (other, target) in others.iter().zip(&targets) {
        other.destroy(&a.node).unwrap();
        target.destroy(&b.node).unwrap();
    }
    pool.destroy(&b.node.hca).unwrap();
    Pair { a, b, wire: pair.wire }.end();
}
