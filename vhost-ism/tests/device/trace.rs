//! The execution trace of requests and doorbells.

use std::time::Duration;

use vhost_daemon::Program;
use vhost_daemon::trace::{
    Event as Recorded, Events, Header, Session, Timeline, Trace, start_flight_recorder, write_stream,
};
use vhost_ism::abi::CHUNK_SIZE;
use vhost_ism::ism_event::{IsmEvent, IsmTimeline, Scope, times};

use crate::common::*;

fn recorded() -> Trace {
    let program = Program {
        name: "test",
        version: "0",
    };
    let header = Header::new(program, &["a", "b"].map(str::to_owned), IsmEvent::EVENTS);
    let mut stream = Vec::new();
    write_stream(&mut stream, Session::start(true), Duration::ZERO).unwrap();
    Trace::read(&mut stream.as_slice(), header, IsmEvent::EVENTS, |_| {}).unwrap()
}

fn is(event: &Recorded, kind: IsmEvent, guest: u16) -> bool {
    event.event == kind.index() && event.guest == guest
}

#[test]
fn a_bell_is_the_cause_of_its_delivery() {
    start_flight_recorder();
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    let attached = b.attach(owned.token).unwrap();
    b.ring(attached.offset);
    let chunk = (owned.offset / CHUNK_SIZE) as u32;
    assert_eq!(a.expect_event(), Event::Doorbells(vec![chunk]));
    assert!(b.alloc_for_peer(a.gid(), u64::MAX).is_err());

    // The event is recorded behind the interrupt.
    eventually("the delivery is recorded", || {
        recorded().events.iter().any(|event| is(event, IsmEvent::Deliver, 0))
    });
    let trace = recorded();
    assert_eq!(trace.lost, 0);
    let timeline = IsmTimeline::new(&trace);
    let find = |kind, guest| trace.events.iter().position(|event| is(event, kind, guest)).unwrap();
    let (bell, deliver) = (find(IsmEvent::Bell, 1), find(IsmEvent::Deliver, 0));
    assert_eq!(trace.events[bell].object, (attached.offset / CHUNK_SIZE) as u32);
    assert_eq!(timeline.parent(deliver), Some(bell));
    assert_eq!(trace.events[deliver].arguments[..2], [1, 1]);
    let labels = |guest| {
        let of_guest = trace.events.iter().filter(move |event| event.guest == guest);
        of_guest
            .map(|event| timeline.label(event).into_owned())
            .collect::<Vec<_>>()
    };
    for (guest, expected) in [(0, "ALLOC_FOR_PEER"), (1, "ATTACH"), (0, "1 events and an interrupt")] {
        assert!(
            labels(guest).iter().any(|label| label == expected),
            "no {expected:?} in {:#?}",
            labels(guest)
        );
    }
    assert!(
        labels(1)
            .iter()
            .any(|label| label.starts_with("ALLOC_FOR_PEER refused")),
        "{:#?}",
        labels(1)
    );
    // Each maps the doorbell area and the slab.
    for guest in [0, 1] {
        let maps = trace.events.iter().filter(|event| is(event, IsmEvent::Map, guest));
        assert_eq!(maps.count(), 2, "{:#?}", labels(guest));
    }
    // b also asked for a DMB in vain, and only it rang.
    let rows = |scope| {
        let text = times(&trace, &timeline, scope).to_string();
        let counts = ["bell to delivery", "ALLOC_FOR_PEER", "ATTACH", "map"].map(|row| {
            let line = text.lines().find_map(|line| line.strip_prefix(row));
            let count = line.and_then(|line| line.split_whitespace().next());
            count.map_or(0, |count| count.parse::<usize>().unwrap())
        });
        (counts, text.lines().count() - 1)
    };
    let chunk = trace.events[bell].object;
    let in_all = rows(Scope::All).0;
    assert_eq!((in_all[0], in_all[2], in_all[3]), (1, 1, 4));
    assert_eq!(rows(Scope::Guest(0)).0, [0, 1, 0, 2]);
    assert_eq!(rows(Scope::Guest(1)).0, [1, 1, 1, 2]);
    assert_eq!(rows(Scope::Dmb { guest: 1, chunk }), ([1, 0, 0, 0], 1));
    assert_eq!(rows(Scope::Dmb { guest: 0, chunk }), ([0; 4], 0));
    assert_eq!(
        rows(Scope::Dmb {
            guest: 1,
            chunk: chunk + 1
        }),
        ([0; 4], 0)
    );
}
