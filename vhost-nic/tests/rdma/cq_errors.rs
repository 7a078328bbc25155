//! Completion queues that overrun or cannot be written: an error of the CQ, then of each queue that completes to it
//! (IBTA 11.6.3.2).

use std::sync::Arc;

use mlx5_prm::queue_entry::{CqeOpcode, EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::CompletionQueue;
use mlx5_test_driver::domain::{alloc_xrcd, dealloc_xrcd};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Q_KEY, QueuePair, Request, Shape, address, connect, service};
use mlx5_test_driver::srq::Srq;
use vhost_daemon::fault::{Faults, Plan};
use vhost_nic::fault::NicFault;
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::pair::{Pair, hears, is_in_error, pattern};

const LENGTH: usize = 3000;
/// Syndromes of the event (`struct mlx5_eqe_cq_err`), each with the status of the context.
const OVERRUN: (u8, u8) = (1, 0x9);
const ACCESS: (u8, u8) = (2, 0xa);

fn pair(shape: Shape) -> (Pair, Arc<Faults<NicFault>>) {
    let switch = Switch::new();
    Pair::faulty([switch.clone(), switch], shape, &Connection::default())
}

/// Completion queues of four entries.
fn small(service: u8) -> Shape {
    Shape {
        log_cq: 2,
        ..Shape::new(service)
    }
}

/// Lets the next CQE of a guest be one that cannot be written.
fn next_is_unwritable(faults: &Faults<NicFault>, guest: &str) {
    let rule = format!("[[fault]]\nkind = \"dma_failed\"\npurpose = \"cqe\"\nguest = \"{guest}\"\ncount = 1");
    faults.apply(Plan::from_toml(&rule).unwrap()).unwrap();
}

/// Waits for the event of a completion queue in error.
#[track_caller]
fn fails(node: &Node, cq: &CompletionQueue, (syndrome, status): (u8, u8)) {
    let event = node.hca.wait_event(EventType::CqError);
    assert_eq!(
        (&event.data[..4], event.data[11]),
        (&cq.number.to_be_bytes()[..], syndrome)
    );
    assert_eq!(cq.query(&node.hca).unwrap().status(), status);
}

#[test]
fn an_overrun_of_a_send_cq_ends_its_queue_pair() {
    let (mut pair, _) = pair(small(service::RC));
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LENGTH), 0);
    let counters = [(); 5].map(|()| pair.a.qp.post(&request));
    fails(&pair.a.node, &pair.a.qp.send_cq, OVERRUN);
    hears(&pair.a.node, EventType::WqCatastrophicError, pair.a.qp.number);
    is_in_error(&pair.a.node, &pair.a.qp);
    // What is in the queue can be read, and nothing follows.
    for counter in &counters[..4] {
        pair.a.qp.sent(WqeOpcode::RdmaWrite, *counter);
    }
    pair.a.qp.post(&request);
    pair.a.qp.silent();
    pair.end();
}

#[test]
fn a_queue_whose_cq_is_in_error_sends_no_further_batch() {
    /// Messages of a batch.
    const BATCH: u64 = 128;
    let shape = Shape {
        log_sq: 9,
        ..small(service::UC)
    };
    let (mut pair, _) = pair(shape);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 64), 0);
    for _ in 0..2 * BATCH {
        pair.a.qp.put(&request);
    }
    pair.a.qp.ring();
    fails(&pair.a.node, &pair.a.qp.send_cq, OVERRUN);
    hears(&pair.a.node, EventType::WqCatastrophicError, pair.a.qp.number);
    is_in_error(&pair.a.node, &pair.a.qp);
    assert_eq!(pair.b.node.hca.machine.nic().snapshot().port.received, BATCH);
    pair.end();
}

#[test]
fn a_full_cq_is_no_overrun() {
    let (mut pair, _) = pair(small(service::RC));
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LENGTH), 0);
    for _ in 0..3 {
        let counters = [(); 4].map(|()| pair.a.qp.post(&request));
        for counter in counters {
            pair.a.qp.sent(WqeOpcode::RdmaWrite, counter);
        }
    }
    pair.a.qp.silent();
    pair.end();
}

#[test]
fn a_cqe_that_cannot_be_written_ends_the_cq_and_its_queue_pair() {
    let (mut pair, faults) = pair(Shape::new(service::RC));
    next_is_unwritable(&faults, "nic1");
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, LENGTH), 0);
    pair.a.qp.post(&request);
    fails(&pair.a.node, &pair.a.qp.send_cq, ACCESS);
    hears(&pair.a.node, EventType::WqCatastrophicError, pair.a.qp.number);
    is_in_error(&pair.a.node, &pair.a.qp);
    pair.a.qp.post(&request);
    pair.a.qp.silent();
    pair.end();
}

#[test]
fn a_receive_cq_that_fails_is_an_operational_error_of_the_peer() {
    for opcode in [WqeOpcode::Send, WqeOpcode::RdmaWriteImmediate] {
        let (mut pair, _) = pair(small(service::RC));
        let data = pattern(7, LENGTH);
        pair.a.memory.write(0, &data);
        let receives = [(); 6].map(|()| pair.b.qp.receive(&[pair.b.part(0, LENGTH)]));
        let request = match opcode {
            WqeOpcode::Send => Request::new(opcode, pair.a.data(0, LENGTH)),
            _ => pair.request(opcode, pair.a.data(0, LENGTH), 0),
        };
        let arrives = match opcode {
            WqeOpcode::Send => CqeOpcode::ResponderSend,
            _ => CqeOpcode::ResponderWriteImmediate,
        };
        for _ in 0..4 {
            let counter = pair.a.qp.post(&request);
            pair.a.qp.sent(opcode, counter);
        }
        let counter = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(counter), Syndrome::RemoteOperation as u8);
        fails(&pair.b.node, &pair.b.qp.receive_cq, OVERRUN);
        hears(&pair.b.node, EventType::WqCatastrophicError, pair.b.qp.number);
        is_in_error(&pair.b.node, &pair.b.qp);
        for receive in &receives[..4] {
            pair.b.qp.received(arrives, *receive, LENGTH);
        }
        assert!(pair.b.memory.read(0, LENGTH) == data);
        pair.b.qp.silent();
        pair.end();
    }
}

#[test]
fn a_receive_cq_of_an_unreliable_service_ends_the_receiver_alone() {
    for service in [service::UC, service::UD] {
        let (mut pair, faults) = pair(Shape::new(service));
        pair.b.qp.receive(&[pair.b.part(0, LENGTH)]);
        next_is_unwritable(&faults, "nic2");
        let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, 100));
        if service == service::UD {
            request.to = Some(address(&pair.b.node, pair.b.qp.number, Q_KEY));
        }
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(WqeOpcode::Send, counter);
        fails(&pair.b.node, &pair.b.qp.receive_cq, ACCESS);
        hears(&pair.b.node, EventType::WqCatastrophicError, pair.b.qp.number);
        is_in_error(&pair.b.node, &pair.b.qp);
        pair.b.qp.silent();
        pair.end();
    }
}

#[test]
fn the_cq_of_an_xrc_srq_ends_the_srq_and_the_queue_pairs_that_receive_with_it() {
    let (pair, faults) = pair(Shape::new(service::RC));
    let (a, b) = (pair.a, pair.b);
    let xrcd = alloc_xrcd(&b.node.hca).unwrap();
    let cq = b.node.completion_queue(6, false);
    let mut srq = Srq::xrc(&b.node.hca, b.node.pd, xrcd, &cq, 4).unwrap();
    let shape = Shape {
        sends: false,
        xrcd,
        ..Shape::new(service::XRC)
    };
    let mut initiators = [0, 1].map(|_| QueuePair::create(&a.node, Shape::new(service::XRC)).unwrap());
    let targets = [0, 1].map(|_| QueuePair::create(&b.node, shape).unwrap());
    for (initiator, target) in initiators.iter().zip(&targets) {
        connect((&a.node, initiator), (&b.node, target), &Connection::default());
    }
    for _ in 0..4 {
        srq.post(&[b.part(0, LENGTH)]);
    }
    next_is_unwritable(&faults, "nic2");
    let mut request = Request::new(WqeOpcode::Send, a.data(0, LENGTH));
    request.xrc_srqn = Some(srq.number);
    for (index, (initiator, target)) in initiators.iter_mut().zip(&targets).enumerate() {
        let counter = initiator.post(&request);
        assert_eq!(initiator.send_error(counter), Syndrome::RemoteOperation as u8);
        if index == 0 {
            fails(&b.node, &cq, ACCESS);
            hears(&b.node, EventType::SrqCatastrophicError, srq.number);
        }
        hears(&b.node, EventType::WqCatastrophicError, target.number);
        is_in_error(&b.node, target);
    }
    assert!(srq.is_in_error(&b.node.hca).unwrap());
    for (initiator, target) in initiators.iter().zip(&targets) {
        initiator.destroy(&a.node).unwrap();
        target.destroy(&b.node).unwrap();
    }
    srq.destroy(&b.node.hca).unwrap();
    cq.destroy(&b.node.hca).unwrap();
    dealloc_xrcd(&b.node.hca, xrcd).unwrap();
    Pair { a, b, wire: pair.wire }.end();
}
