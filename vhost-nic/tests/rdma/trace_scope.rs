//! The stages of one queue or guest, among queues of the same number.

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Request, Shape, service};
use vhost_daemon::trace::start_flight_recorder;
use vhost_nic::timeline::{NicTimeline, Scope, stages};

use crate::pair::Pair;
use crate::trace::recorded;

const STAGES: [&str; 4] = ["WQE to packet", "packet to peer", "peer to response", "packet to CQE"];

#[test]
fn the_stages_of_a_queue_are_its_own_although_the_peers_has_the_same_number() {
    start_flight_recorder();
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let number = pair.a.qp.number;
    assert_eq!(pair.b.qp.number, number);
    for _ in 0..3 {
        let write = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 100), 0);
        let index = pair.a.qp.post(&write);
        pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    }
    for _ in 0..2 {
        let receive = pair.a.qp.receive(&[pair.a.part(0, 100)]);
        let index = pair.b.qp.post(&Request::new(WqeOpcode::Send, pair.b.data(0, 100)));
        pair.b.qp.sent(WqeOpcode::Send, index);
        pair.a.qp.received(CqeOpcode::ResponderSend, receive, 100);
    }
    pair.end();

    let trace = recorded();
    assert_eq!(trace.lost, 0);
    let timeline = NicTimeline::new(&trace);
    let counts = |scope| {
        let table = stages(&trace, &timeline, scope).to_string();
        let commands = table.lines().any(|line| line.starts_with("doorbell to command"));
        let counts = STAGES.map(|stage| {
            let line = table.lines().find_map(|line| line.strip_prefix(stage));
            let count = line.and_then(|line| line.split_whitespace().next());
            count.map_or(0, |count| count.parse::<usize>().unwrap())
        });
        (counts, commands)
    };
    // The CQE of a SEND at the responder has the packet as its cause, as that at the requester has the response.
    let (of_a, of_b) = ([3, 6, 3, 3], [2, 4, 2, 4]);
    let (a, b) = (1, 2);
    assert_eq!(counts(Scope::Queue { guest: a, number }), (of_a, false));
    assert_eq!(counts(Scope::Queue { guest: b, number }), (of_b, false));
    assert_eq!(counts(Scope::Guest(a)), (of_a, true));
    assert_eq!(counts(Scope::Guest(b)), (of_b, true));
    assert_eq!(counts(Scope::All), ([5, 10, 5, 7], true));
    let other = number + 1;
    assert_eq!(
        counts(Scope::Queue {
            guest: a,
            number: other
        }),
        ([0; 4], false)
    );
}
