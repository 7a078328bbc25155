//! The execution trace of messages and commands.

use std::time::Duration;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Shape, service};
use vhost_daemon::Program;
use vhost_daemon::trace::{
    Event, Events, Header, Session, Timeline, Trace, start_flight_recorder, write_json, write_perfetto, write_stream,
};
use vhost_nic::hca::nic_event::NicEvent;
use vhost_nic::timeline::{NicTimeline, stages};

use crate::pair::{Pair, pattern};

/// Reads what has been recorded.
pub fn recorded() -> Trace {
    let program = Program {
        name: "test",
        version: "0",
    };
    let names = ["none", "a", "b"].map(str::to_owned);
    let header = Header::new(program, &names, NicEvent::EVENTS);
    let mut stream = Vec::new();
    write_stream(&mut stream, Session::start(true), Duration::ZERO).unwrap();
    Trace::read(&mut stream.as_slice(), header, NicEvent::EVENTS, |_| {}).unwrap()
}

pub fn name(event: &Event) -> &'static str {
    NicEvent::EVENTS[usize::from(event.event)].name
}

/// The names of an event and of its causes, each with the guest.
pub fn chain(trace: &Trace, timeline: &NicTimeline, index: usize) -> Vec<(&'static str, u16)> {
    let indexes = std::iter::successors(Some(index), |index| timeline.parent(*index));
    indexes
        .map(|index| (name(&trace.events[index]), trace.events[index].guest))
        .collect()
}

#[test]
fn the_causes_of_a_completion_lead_to_the_doorbell() {
    start_flight_recorder();
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    pair.a.memory.write(0, &pattern(1, 3000));
    let mut numbers = Vec::new();
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead] {
        let request = pair.request(opcode, pair.a.data(0, 3000), 1000);
        let index = pair.a.qp.post(&request);
        pair.a.qp.sent(opcode, index);
        numbers.push((index, opcode));
    }
    let (qpn, peer) = (pair.a.qp.number, pair.b.qp.number);
    pair.end();

    let trace = recorded();
    assert_eq!(trace.lost, 0);
    let timeline = NicTimeline::new(&trace);
    let (a, b) = (1, 2);
    for (index, opcode) in numbers {
        let cqe = trace.events.iter().position(|event| {
            name(event) == "cqe" && event.guest == a && event.arguments[..2] == [qpn, u32::from(index)]
        });
        let causes = chain(&trace, &timeline, cqe.unwrap());
        let expected = [
            ("cqe", a),
            ("packet_in", a),
            ("packet_out", b),
            ("packet_in", b),
            ("packet_out", a),
            ("wqe", a),
            ("doorbell", a),
        ];
        assert_eq!(causes, expected, "{opcode:?}");
    }
    // Every cause is earlier, and every packet that arrives was sent.
    for (index, event) in trace.events.iter().enumerate() {
        assert!(timeline.parent(index).is_none_or(|parent| parent < index), "{event:?}");
        if name(event) == "packet_in" {
            assert!(timeline.parent(index).is_some(), "{event:?}");
            assert!([qpn, peer].contains(&event.object), "{event:?}");
        }
    }
    let labels: Vec<String> = trace
        .events
        .iter()
        .map(|event| timeline.label(event).into_owned())
        .collect();
    for expected in [
        "INIT_HCA",
        "CREATE_QP",
        "WQE 0x0 RDMA_WRITE",
        "out Write Only PSN 0x123456",
        "in ReadRequest Only PSN 0x123459",
        "DESTROY_QP",
    ] {
        assert!(
            labels.iter().any(|label| label == expected),
            "no {expected:?} in {labels:#?}"
        );
    }

    let table = stages(&trace, &timeline, Some(qpn)).to_string();
    for stage in ["doorbell to WQE", "WQE to packet", "packet to peer", "packet to CQE"] {
        let line = table.lines().find(|line| line.starts_with(stage));
        let count = line.and_then(|line| line[stage.len()..].split_whitespace().next());
        assert!(count.is_some_and(|count| count != "0"), "{stage}: {table}");
    }

    let mut json = Vec::new();
    write_json(&mut json, &trace, &timeline).unwrap();
    let lines = String::from_utf8(json).unwrap();
    assert_eq!(lines.lines().count(), trace.events.len());
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert!(first["time_ns"].is_u64() && first["thread"].is_string(), "{first}");
    let mut perfetto = Vec::new();
    write_perfetto(&mut perfetto, &trace, &timeline).unwrap();
    if let Ok(path) = std::env::var("VHOST_TEST_TRACE") {
        std::fs::write(path, &perfetto).unwrap();
    }
}
