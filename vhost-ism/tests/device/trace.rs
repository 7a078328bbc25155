//! The execution trace of requests and doorbells.

use std::time::Duration;

use vhost_daemon::Program;
use vhost_daemon::finding::Kind;
use vhost_daemon::trace::{
    Event as Recorded, Events, Header, Session, Timeline, Trace, start_flight_recorder, write_stream,
};
use vhost_ism::abi::*;
use vhost_ism::ism_event::{IsmEvent, IsmTimeline, Scope, times};
use vhost_ism::ism_finding::Finding;

use crate::common::*;
use crate::faults::Faulty;

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

/// A command as an argument of an event.
fn command((class, cmd): (u8, u8)) -> u32 {
    u16::from_be_bytes([class, cmd]).into()
}

/// Kind and guest of an event's parent, with the command if that is an arrival.
fn cause(trace: &Trace, timeline: &IsmTimeline, index: usize) -> Option<(IsmEvent, u16, u32)> {
    let parent = &trace.events[timeline.parent(index)?];
    Some((IsmEvent::at(parent.event)?, parent.guest, parent.arguments[0]))
}

/// Positions of the events of a kind and a guest.
fn all(trace: &Trace, kind: IsmEvent, guest: u16) -> Vec<usize> {
    let places = 0..trace.events.len();
    places.filter(|&place| is(&trace.events[place], kind, guest)).collect()
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
    assert_eq!(cause(&trace, &timeline, bell), Some((IsmEvent::Kick, 1, 0)));
    assert_eq!(trace.events[deliver].arguments[..2], [1, 1]);
    let labels = |guest| {
        let of_guest = trace.events.iter().filter(move |event| event.guest == guest);
        of_guest
            .map(|event| timeline.label(event).into_owned())
            .collect::<Vec<_>>()
    };
    for (guest, expected) in [
        (0, "ALLOC_FOR_PEER taken"),
        (0, "ALLOC_FOR_PEER"),
        (1, "ATTACH"),
        (0, "1 events and an interrupt"),
    ] {
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
    for (guest, maker) in [(0, CMD_ALLOC_FOR_PEER), (1, CMD_ATTACH)] {
        let maps = all(&trace, IsmEvent::Map, guest);
        let causes: Vec<_> = maps.iter().map(|map| cause(&trace, &timeline, *map)).collect();
        let expected = [CMD_QUERY_GID, maker].map(|maker| Some((IsmEvent::Arrival, guest, command(maker))));
        assert_eq!(causes, expected, "{:#?}", labels(guest));
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

#[test]
fn what_a_request_does_has_the_request_as_its_cause() {
    start_flight_recorder();
    let mut faulty = Faulty::at(Host::default());
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot_without_buffers("b"));
    let own = a.alloc(1 << 16).unwrap();
    a.detach(own.token).unwrap();
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    let attached = b.attach(owned.token).unwrap();
    b.send_message(a.gid(), 1, 2).unwrap();
    assert_eq!(a.expect_event(), Event::Message(b.gid(), 1, 2));
    a.detach(owned.token).unwrap();
    // The byte of a chunk that is no DMB, and then the bell of one that is lost.
    b.ring(20 << 20);
    let seat = b.seat.clone().unwrap();
    eventually("a finding", || seat.found(Finding::StrayDoorbell) == 1);
    faulty.apply("[[fault]]\nkind = \"bell_lost\"\nguest = \"a\"");
    b.ring(attached.offset);
    eventually("the strike", || faulty.strikes() == [1]);
    faulty.apply("[[fault]]\nkind = \"request_refused\"\nrequest = \"subscribe\"\nstatus = \"err\"");
    assert_eq!(b.subscribe(EV_UPDATE), Err(Status::Err));

    let trace = recorded();
    assert_eq!(trace.lost, 0);
    let timeline = IsmTimeline::new(&trace);
    let causes = |kind, guest| {
        let events = all(&trace, kind, guest);
        events
            .into_iter()
            .map(|event| {
                let (kind, guest, command) = cause(&trace, &timeline, event).expect("a cause");
                let Recorded { object, arguments, .. } = trace.events[event];
                (object, arguments[0], (kind, guest, command))
            })
            .collect::<Vec<_>>()
    };
    let taken = |guest, request| (IsmEvent::Arrival, guest, command(request));
    let unmaps = causes(IsmEvent::Unmap, 0);
    let [(0, page, unmapped)] = unmaps[..] else {
        panic!("{unmaps:?}")
    };
    assert_eq!((u64::from(page) * 4096, unmapped), (own.offset, taken(0, CMD_DETACH)));
    let delivered = causes(IsmEvent::Deliver, 0);
    assert_eq!(delivered, [(0, 1, taken(1, CMD_SEND_MESSAGE))]);
    let finding = |kind: Finding, object: u64, cause| (kind.index() as u32, object as u32, cause);
    let freed = finding(
        Finding::DmbFreedAttached,
        owned.offset / CHUNK_SIZE,
        taken(0, CMD_DETACH),
    );
    assert_eq!(causes(IsmEvent::Finding, 0), [freed]);
    let kick = (IsmEvent::Kick, 1, 0);
    let stray = finding(Finding::StrayDoorbell, (20 << 20) / CHUNK_SIZE, kick);
    assert_eq!(causes(IsmEvent::Finding, 1), [stray]);
    let lost = ((owned.offset / CHUNK_SIZE) as u32, 2, (IsmEvent::Bell, 1, 0));
    assert_eq!(causes(IsmEvent::Fault, 0), [lost]);
    let refused = (command(CMD_SUBSCRIBE), 0, taken(1, CMD_SUBSCRIBE));
    assert_eq!(causes(IsmEvent::Fault, 1), [refused]);
    eventually("the end of the last kick", || {
        let trace = recorded();
        let [kicks, served] = [IsmEvent::Kick, IsmEvent::KickServed].map(|kind| all(&trace, kind, 1).len());
        kicks == served && kicks as u64 == seat.counters().kicks
    });
    assert_eq!(causes(IsmEvent::KickServed, 0)[0], (0, 0, (IsmEvent::Kick, 0, 0)));
    // Outside of request and kick, an event has no cause.
    a.send_message(b.gid(), 3, 4).unwrap();
    b.post_event(256);
    assert_eq!(b.expect_event(), Event::Message(a.gid(), 3, 4));
    eventually("the delivery is recorded", || {
        all(&recorded(), IsmEvent::Deliver, 1).len() == 1
    });
    let late = recorded();
    let [delivery] = all(&late, IsmEvent::Deliver, 1)[..] else {
        panic!("one delivery")
    };
    assert_eq!(IsmTimeline::new(&late).parent(delivery), None);
    // Every answer has its arrival.
    for guest in [0, 1] {
        for (_, request, (kind, of, arrived)) in causes(IsmEvent::Request, guest) {
            assert_eq!((kind, of, arrived), (IsmEvent::Arrival, guest, request));
        }
    }
}
