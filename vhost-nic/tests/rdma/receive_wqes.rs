//! Receive WQEs that cannot be read: completed in error, as malformed ones (IBTA 9.9.3), or, in a shared receive queue,
//! its end: the index of the next WQE is lost with it.

use std::sync::Arc;

use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Q_KEY, QueuePair, Request, Shape, address, service};
use mlx5_test_driver::srq::Srq;
use vhost_daemon::fault::{Faults, Plan};
use vhost_nic::fault::NicFault;
use vhost_nic::net::Switch;

use crate::pair::{Pair, hears, is_in_error, receives};

const LENGTH: usize = 5000;

/// Two guests, of which the second cannot read its second receive WQE.
fn pair(service: u8) -> (Pair, Arc<Faults<NicFault>>) {
    let switch = Switch::new();
    let (pair, faults) = Pair::faulty([switch.clone(), switch], Shape::new(service), &Connection::default());
    let rule = "[[fault]]\nkind = \"dma_failed\"\npurpose = \"receive_wqe\"\nguest = \"nic2\"\nskip = 1\ncount = 1";
    faults.apply(Plan::from_toml(rule).unwrap()).unwrap();
    (pair, faults)
}

#[test]
fn that_of_a_reliable_service_is_an_operational_error_of_the_peer() {
    for (opcode, length) in [
        (WqeOpcode::Send, 8),
        (WqeOpcode::Send, LENGTH),
        (WqeOpcode::RdmaWriteImmediate, LENGTH),
    ] {
        let (mut pair, _) = pair(service::RC);
        let receives = [(); 3].map(|()| pair.b.qp.receive(&[pair.b.part(0, LENGTH)]));
        let request = match opcode {
            WqeOpcode::Send => Request::new(opcode, pair.a.data(0, length)),
            _ => pair.request(opcode, pair.a.data(0, length), 0),
        };
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(opcode, counter);
        pair.b.qp.receive_cq.wait();
        pair.b.qp.receive_cq.release();
        let counter = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(counter), Syndrome::RemoteOperation as u8);
        assert_eq!(pair.b.qp.receive_error(receives[1]), Syndrome::LocalQpOperation as u8);
        assert_eq!(pair.b.qp.receive_error(receives[2]), Syndrome::WrFlush as u8);
        is_in_error(&pair.b.node, &pair.b.qp);
        pair.b.qp.silent();
        pair.end();
    }
}

#[test]
fn those_of_unreliable_services_end_the_receiver_alone() {
    for service in [service::UC, service::UD] {
        let (mut pair, _) = pair(service);
        let receives = [(); 2].map(|()| pair.b.qp.receive(&[pair.b.part(0, LENGTH)]));
        let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, 100));
        if service == service::UD {
            request.to = Some(address(&pair.b.node, pair.b.qp.number, Q_KEY));
        }
        for _ in 0..2 {
            let counter = pair.a.qp.post(&request);
            pair.a.qp.sent(WqeOpcode::Send, counter);
        }
        pair.b.qp.receive_cq.wait();
        pair.b.qp.receive_cq.release();
        assert_eq!(pair.b.qp.receive_error(receives[1]), Syndrome::LocalQpOperation as u8);
        is_in_error(&pair.b.node, &pair.b.qp);
        pair.b.qp.silent();
        pair.end();
    }
}

#[test]
fn that_of_a_pool_ends_the_pool() {
    let (pair, _) = pair(service::RC);
    let (a, b) = (pair.a, pair.b);
    let mut pool = Srq::rmp(&b.node.hca, b.node.pd, 4).unwrap();
    let shape = Shape {
        srq: Some(pool.number),
        ..Shape::new(service::RC)
    };
    let mut target = QueuePair::create(&b.node, shape).unwrap();
    let mut other = QueuePair::create(&a.node, Shape::new(service::RC)).unwrap();
    other
        .connect(&a.node, &b.node, target.number, &Connection::default())
        .unwrap();
    receives((&b.node, &target), (&a.node, &other));
    for _ in 0..4 {
        pool.post(&[b.part(0, LENGTH)]);
    }
    let request = Request::new(WqeOpcode::Send, a.data(0, 8));
    let counter = other.post(&request);
    other.sent(WqeOpcode::Send, counter);
    target.receive_cq.wait();
    target.receive_cq.release();
    let counter = other.post(&request);
    assert_eq!(other.send_error(counter), Syndrome::RemoteOperation as u8);
    hears(&b.node, EventType::SrqCatastrophicError, pool.number);
    hears(&b.node, EventType::WqCatastrophicError, target.number);
    is_in_error(&b.node, &target);
    assert!(pool.is_in_error(&b.node.hca).unwrap());
    target.silent();
    other.destroy(&a.node).unwrap();
    target.destroy(&b.node).unwrap();
    pool.destroy(&b.node.hca).unwrap();
    Pair { a, b, wire: pair.wire }.end();
}
