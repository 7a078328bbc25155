//! Busy polling: a drained send queue is polled for a while.

use std::time::Duration;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use vhost_daemon::trace::start_flight_recorder;
use vhost_nic::net::Switch;

use crate::nic::machine_with;
use crate::trace::{name, recorded};

#[test]
fn what_is_posted_meanwhile_needs_no_doorbell() {
    start_flight_recorder();
    let machine = machine_with(&Switch::new(), 1, |config| config.busy_poll = Duration::from_secs(60));
    let node = Node::open(machine, 1);
    let qp = || QueuePair::create(&node, Shape::new(service::RC)).unwrap();
    let (mut a, b) = (qp(), qp());
    connect((&node, &a), (&node, &b), &Connection::default());
    let memory = node.region(4096);
    let request = |byte: u8| {
        let data = vec![Data::Inline(vec![byte; 8])];
        Request::remote(WqeOpcode::RdmaWrite, data, memory.at(0), memory.key)
    };
    let counter = a.post(&request(1));
    a.sent(WqeOpcode::RdmaWrite, counter);
    for byte in 2..50 {
        let counter = a.put(&request(byte));
        a.publish();
        a.sent(WqeOpcode::RdmaWrite, counter);
        assert_eq!(memory.read(0, 8), [byte; 8]);
    }
    // Another queue's doorbell is serviced meanwhile.
    let (mut c, d) = (qp(), qp());
    connect((&node, &c), (&node, &d), &Connection::default());
    let counter = c.post(&request(99));
    c.sent(WqeOpcode::RdmaWrite, counter);
    assert_eq!(memory.read(0, 8), [99; 8]);
    let trace = recorded();
    let count = |event, queue: u32, argument| {
        let events = trace
            .events
            .iter()
            .filter(|found| name(found) == event && found.object == queue);
        events.filter(|found| found.arguments[0] == argument).count()
    };
    // The thread also turns to the queue for a response, and may find the next WQE then; and the first before its
    // doorbell.
    let polled = count("service", a.number, 1);
    assert!((1..=49).contains(&polled), "{polled}");
    let doorbells = trace.events.iter().filter(|found| name(found) == "doorbell");
    assert_eq!(doorbells.filter(|found| found.object == a.number).count(), 1);
    let begins_and_ends = [1, 0].map(|begins| count("hot_period", a.number, begins));
    assert_eq!(begins_and_ends, [1, 0]);
    for qp in [&a, &b, &c, &d] {
        qp.destroy(&node).unwrap();
    }
    memory.destroy(&node.hca).unwrap();
    node.close();
}
