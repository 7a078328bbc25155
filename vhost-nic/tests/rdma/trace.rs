//! The execution trace of messages and commands.

use std::time::Duration;

use mlx5_prm::queue_entry::{CqeOpcode, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Request, Shape, service};
use mlx5_test_driver::wait::eventually;
use vhost_daemon::trace::{
    Event, Events, Header, Session, Timeline, Trace, read_perfetto, start_flight_recorder, write_json, write_perfetto,
    write_stream,
};
use vhost_daemon::{CommonArgs, Program, TraceSource, await_dump_signal};
use vhost_nic::dma::Purpose;
use vhost_nic::hca::nic_event::{ERROR_CQE, NicEvent};
use vhost_nic::hca::nic_finding::CATALOGUES;
use vhost_nic::net::Switch;
use vhost_nic::timeline::{NicTimeline, Scope, stages};

use crate::pair::{Pair, pattern};
use crate::wire::Fate;

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

/// Whether the first doorbell of a guest is before its first WQE. The worker services a queue that becomes ready to
/// send as well: if it is late, the WQE is there already, and its doorbell is not.
fn is_rung_first(trace: &Trace, guest: u16) -> bool {
    let first = |wanted| {
        trace
            .events
            .iter()
            .position(|event| name(event) == wanted && event.guest == guest)
    };
    first("doorbell").unwrap() < first("wqe").unwrap()
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
    for (position, (index, opcode)) in numbers.into_iter().enumerate() {
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
        let is_rung = position > 0 || is_rung_first(&trace, a);
        assert_eq!(causes, expected[..expected.len() - usize::from(!is_rung)], "{opcode:?}");
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

    let queue = Scope::Queue { guest: a, number: qpn };
    let table = stages(&trace, &timeline, queue).to_string();
    let all = stages(&trace, &timeline, Scope::All).to_string();
    for (table, stage) in [
        (&table, "doorbell to WQE"),
        (&table, "WQE to packet"),
        (&table, "packet to peer"),
        (&table, "packet to CQE"),
        (&all, "doorbell to command"),
        (&all, "command to EQE"),
    ] {
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

/// An event, its label, and the names of the event and its causes, each with the guest.
type Traced<'a> = (&'a Event, String, Vec<(&'static str, u16)>);

/// The events of a name, with the causes of each.
fn all<'a>(trace: &'a Trace, timeline: &NicTimeline, wanted: &str, guest: u16) -> Vec<Traced<'a>> {
    let of_kind = |(_, event): &(usize, &Event)| name(event) == wanted && event.guest == guest;
    let events = trace.events.iter().enumerate().filter(of_kind);
    events
        .map(|(index, event)| (event, timeline.label(event).into_owned(), chain(trace, timeline, index)))
        .collect()
}

#[test]
fn an_access_to_memory_has_its_purpose_and_cause() {
    start_flight_recorder();
    let switch = Switch::new();
    let how = Connection::default();
    let (mut pair, _faults) = Pair::faulty([switch.clone(), switch], Shape::new(service::RC), &how);
    pair.a.memory.write(0, &pattern(1, 3000));
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 3000), 0);
    let index = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    pair.end();

    let trace = recorded();
    assert_eq!(trace.lost, 0);
    let timeline = NicTimeline::new(&trace);
    let (a, b) = (1, 2);
    let of_purpose = |event, guest, purpose: Purpose| {
        let mut events = all(&trace, &timeline, event, guest);
        events.retain(|(event, ..)| event.object == purpose as u32);
        events
    };
    let arrival = [("packet_in", b), ("packet_out", a), ("wqe", a), ("doorbell", a)];
    let payload = [("dma_read", a, Purpose::Gather), ("dma_write", b, Purpose::Scatter)];
    for (event, guest, purpose) in payload {
        let accesses = of_purpose(event, guest, purpose);
        let bytes: u32 = accesses.iter().map(|(event, ..)| event.arguments[2]).sum();
        assert_eq!(bytes, 3000, "{accesses:#?}");
        for (_, label, causes) in &accesses {
            assert_eq!(causes[0], (event, guest), "{label}");
            assert_eq!(causes[1..], arrival, "{label}");
        }
    }
    // The entry of the command queue and its mailboxes are read before the command ends.
    for (_, label, causes) in of_purpose("dma_read", a, Purpose::CommandFetch) {
        assert_eq!(causes, [("dma_read", a), ("command_doorbell", a)], "{label}");
    }
    // The doorbell is compared with the record and the WQE that it announces.
    let looks = of_purpose("dma_read", a, Purpose::Look);
    let [(record, _, _), (checked, _, by_doorbell), ..] = &looks[..] else {
        panic!("{looks:#?}");
    };
    assert_eq!((record.arguments[2], checked.arguments[2]), (4, 16));
    let wqes = of_purpose("dma_read", a, Purpose::SendWqe);
    let [(fetched, _, by_service)] = &wqes[..] else {
        panic!("{wqes:#?}");
    };
    assert_eq!(fetched.arguments[2], 64);
    assert_eq!(by_doorbell[..], [("dma_read", a), ("doorbell", a)]);
    // The queue is serviced when it becomes ready to send, too, and the WQE may be there before its doorbell.
    let times = |name| {
        all(&trace, &timeline, name, a)
            .into_iter()
            .map(|(event, ..)| event.time)
    };
    let serviced = times("service").filter(|time| *time <= fetched.time).max();
    let is_caused = serviced >= times("doorbell").min();
    let chain = [("dma_read", a), ("service", a), ("doorbell", a)];
    assert_eq!(by_service[..], chain[..if is_caused { 3 } else { 2 }]);
    let cqes = of_purpose("dma_write", a, Purpose::Cqe);
    assert_eq!(cqes[0].2[..2], [("dma_write", a), ("packet_in", a)], "{cqes:#?}");
    let (cqe, label, _) = &cqes[0];
    let [high, low, ..] = cqe.arguments.map(u64::from);
    let bytes = cqe.arguments[2];
    assert_eq!(*label, format!("cqe: write {bytes} bytes at {:#x}", high << 32 | low));

    let mut perfetto = Vec::new();
    write_perfetto(&mut perfetto, &trace, &timeline).unwrap();
    for track in ["dma gather", "dma cqe", "command_queue"] {
        assert!(
            perfetto.windows(track.len()).any(|bytes| bytes == track.as_bytes()),
            "{track}"
        );
    }
}

#[test]
fn a_timeout_begins_with_its_timer() {
    start_flight_recorder();
    // 10 ms: a delay of microseconds may be over before the requester gets to set its timer, which it need not then.
    let how = Connection {
        min_rnr_nak: 20,
        ..Connection::default()
    };
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    pair.wire.strike(0, Fate::Drop, |kind| !kind.forth);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let index = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 8)));
    eventually("an RNR NAK", || {
        recorded().events.iter().any(|event| name(event) == "rnr_nak")
    });
    let receive = pair.b.qp.receive(&[pair.b.part(0, 8)]);
    pair.a.qp.sent(WqeOpcode::Send, send);
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, 8);
    pair.end();

    let trace = recorded();
    let timeline = NicTimeline::new(&trace);
    let (a, b) = (1, 2);
    let timeouts = all(&trace, &timeline, "ack_timeout", a);
    let causes: Vec<_> = timeouts.iter().map(|(.., causes)| &causes[..]).collect();
    let expected = ["ack_timeout", "timer_expired", "timer_set", "wqe", "doorbell"].map(|name| (name, a));
    // On a busy machine the retransmission may time out, too.
    let is_rung = is_rung_first(&trace, a);
    assert_eq!(causes[0], &expected[..expected.len() - usize::from(!is_rung)]);

    // The first acknowledgement is lost, each retransmission is acknowledged as well.
    let sent = all(&trace, &timeline, "ack_out", b);
    let received = all(&trace, &timeline, "ack_in", a);
    let labels = |events: &[(&Event, String, _)], prefix: &str| {
        let labels = events
            .iter()
            .map(|(_, label, _)| label.strip_prefix(prefix).unwrap().to_owned());
        labels.collect::<Vec<_>>()
    };
    let (sent_labels, received_labels) = (labels(&sent, "out "), labels(&received, "in "));
    assert_eq!(sent_labels[..2], ["ACK PSN 0x123456"; 2]);
    assert_eq!(received_labels, sent_labels[1..], "one is lost");
    assert_eq!(received_labels[0], "ACK PSN 0x123456");
    let next = received_labels.iter().find(|label| *label != "ACK PSN 0x123456");
    assert!(
        next.is_some_and(|label| label.starts_with("RNR NAK PSN 0x123457, ")),
        "{received_labels:?}"
    );
    assert_eq!(received_labels.last().unwrap(), "ACK PSN 0x123457");
    assert_eq!(received[0].0.arguments[2], 1, "the MSN of the first message");
    assert_eq!(received[0].2[..3], [("ack_in", a), ("packet_in", a), ("packet_out", b)]);
    assert_eq!(sent[0].2[..3], [("ack_out", b), ("packet_in", b), ("packet_out", a)]);

    let timers = all(&trace, &timeline, "timer_set", a);
    let kinds = |kind: &str| timers.iter().filter(|(_, label, _)| label.starts_with(kind)).count();
    let nak = timers.iter().find(|(_, label, _)| label.starts_with("RNR timer of "));
    assert_eq!(nak.unwrap().2[..3], [("timer_set", a), ("rnr_nak", a), ("wqe", a)]);
    assert!(kinds("acknowledgement timer of ") > 0);
    let expired = all(&trace, &timeline, "timer_expired", a);
    assert!(
        expired.iter().all(|(.., causes)| causes[1] == ("timer_set", a)),
        "{expired:#?}"
    );
}

#[test]
fn an_error_cqe_is_in_the_dump_that_it_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let source = TraceSource {
        program: Program {
            name: "test",
            version: "0",
        },
        guests: &["none", "a", "b"].map(str::to_owned),
        events: NicEvent::EVENTS,
        findings: &CATALOGUES,
        named: &[ERROR_CQE],
        timeline: NicTimeline::new,
    };
    let args = |event: &str| CommonArgs {
        trace_dump: Some(directory.path().to_owned()),
        trace_dump_on: vec![event.to_owned()],
        trace_dump_files: 1,
        ..CommonArgs::default()
    };
    let unknown = source.start(&args("error_cqes"), None).unwrap_err().to_string();
    let begin = "--trace-dump-on error_cqes: there is no such event; the events are signal, error_cqe, doorbell, ";
    assert!(unknown.starts_with(begin), "{unknown}");
    // Of the NIC, and of an attachment.
    for kind in ["stray_doorbell", "short_buffer"] {
        assert!(unknown.contains(&format!(", finding={kind}")), "{unknown}");
    }

    let args = args("error_cqe");
    let signal = await_dump_signal(&args).unwrap();
    let dumper = source.start(&args, signal).unwrap();
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let mut request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    let index = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    request = Request::remote(WqeOpcode::RdmaWrite, pair.a.data(0, 8), pair.b.memory.at(0), 0xbad);
    let index = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(index), Syndrome::RemoteAccess as u8);
    pair.end();
    drop(dumper);
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let path = directory.path().join("test-000001.pftrace");
    let events = read_perfetto(&std::fs::read(path).unwrap());
    let cqes = events
        .iter()
        .filter(|event| event.track[0] == "a" && event.event == "cqe");
    let labels: Vec<&str> = cqes.map(|event| event.label.as_str()).collect();
    assert_eq!(labels, ["CQE 0x0", "CQE 0x1 RemoteAccess"]);
    let nak = events
        .iter()
        .find(|event| event.event == "ack_in" && event.label.contains("NAK"));
    assert_eq!(nak.unwrap().label, "in NAK RemoteAccess PSN 0x123457");
}
