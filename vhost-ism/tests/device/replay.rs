//! Records of guests, and their replay.

use std::io::Cursor;
use std::path::Path;

use vhost_daemon::finding::Kind;
use vhost_daemon::record::{Begun, OrderError, RecordError};
use vhost_ism::abi::*;
use vhost_ism::ism_finding::Finding;
use vhost_ism::record::{Event, Reader, Writer};
use vhost_ism::replay::{Report, copy_prefix, replay, shortest_prefix};
use vhost_ism::tape::Entry;

use crate::common::Event as GuestEvent;
use crate::common::*;
use crate::faults::Faulty;

/// Replays a record whole. Panics unless all outputs are equal.
#[track_caller]
pub fn equal(record: &[u8]) -> Report {
    let report = replayed(record);
    assert_eq!(report.difference, None, "{report}");
    report
}

#[track_caller]
fn replayed(record: &[u8]) -> Report {
    replay(Cursor::new(record.to_vec()), None).unwrap()
}

/// All events of a record, without the end.
fn events(record: &[u8]) -> Vec<Event> {
    let mut reader = Reader::new(record).unwrap();
    std::iter::from_fn(|| Some(reader.next_event().unwrap()).filter(|event| *event != Event::End)).collect()
}

/// A record like another, with other events.
fn with_events(record: &[u8], events: &[Event]) -> Vec<u8> {
    let reader = Reader::new(record).unwrap();
    let mut writer = Writer::new(Vec::new(), reader.setup(), Default::default()).unwrap();
    for event in events {
        writer.write(event).unwrap();
    }
    writer.finish().unwrap()
}

/// Lets two guests share a DMB, ring, send a message, and give the DMB back in order.
fn exchange(a: &mut TestGuest, b: &mut TestGuest) {
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    b.ring(attached.offset);
    assert_eq!(
        a.expect_event(),
        GuestEvent::Doorbells(vec![(dmb.offset / CHUNK_SIZE) as u32])
    );
    b.send_message(a.gid(), 7, 8).unwrap();
    assert_eq!(a.expect_event(), GuestEvent::Message(b.gid(), 7, 8));
    b.detach(dmb.token).unwrap();
    a.detach(dmb.token).unwrap();
}

/// Lets a guest allocate a DMB and give it back.
fn exchange_alone(guest: &mut TestGuest) {
    let dmb = guest.alloc(1 << 14).unwrap();
    guest.detach(dmb.token).unwrap();
}

/// The record of two guests that did everything once.
fn session() -> Vec<u8> {
    let host = Host::recorded(&["a", "b"]);
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    exchange(&mut a, &mut b);
    let solo = a.alloc(1 << 14).unwrap();
    a.grant(
        solo.token,
        Some(b.devid()),
        u64::from(PERM_ATTACH | PERM_READ | PERM_WRITE),
    )
    .unwrap();
    b.attach(solo.token).unwrap();
    // Across a pause, and a reset that leaves an attachment.
    let bases = a.pause();
    a.resume(bases);
    a.query_gid(b.gid()).unwrap();
    let gone = b.gid();
    b.reset();
    assert_eq!(a.expect_event(), GuestEvent::PeerGone(gone));
    exchange(&mut a, &mut b);
    a.kill();
    eventually("the session of a is over", || host.stats().sessions == 1);
    assert!(matches!(b.expect_event(), GuestEvent::PeerGone(_)));
    b.kill();
    host.expect_empty();
    host.finish_record()
}

#[test]
fn a_session_is_replayed_byte_for_byte() {
    let report = equal(&session());
    let kinds: Vec<_> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, ["attachment_left", "dmb_left"]);
    // Per exchange: five requests, a doorbell and two events. Besides: a query at each of three starts and one more,
    // ALLOC, GRANT, ATTACH.
    assert_eq!((report.counts.requests, report.counts.answers), (17, 17));
    assert_eq!(report.counts.doorbells, 2);
    // PEER_GONE to each of the two.
    assert_eq!(report.counts.events, 6);
}

/// Changes an output of the devices. Returns whether the event is one.
fn alter(event: &mut Event) -> bool {
    match event {
        Event::Leave(data) if !data.is_empty() => data[0] ^= 1,
        Event::Answer { data, .. } => *data.last_mut().unwrap() ^= 1,
        Event::Map { offset, .. } | Event::Unmap { offset, .. } => *offset ^= 4096,
        Event::Send {
            buffer: Some(buffer), ..
        } => buffer.event[8] ^= 1,
        Event::Awake { awake, .. } => *awake = !*awake,
        Event::Signal { connection, .. } => *connection ^= 1,
        Event::Finding { number, .. } => *number += 1,
        _ => return false,
    }
    true
}

#[test]
fn the_first_difference_is_reported_with_its_place() {
    let record = session();
    let all = events(&record);
    let is_output = |event: &Event| alter(&mut event.clone());
    let places: Vec<usize> = (0..all.len()).filter(|&index| is_output(&all[index])).collect();
    let kinds: Vec<_> = places
        .iter()
        .map(|&place| std::mem::discriminant(&all[place]))
        .collect();
    for (position, kind) in kinds.iter().enumerate() {
        // The first of each kind.
        if kinds[..position].contains(kind) {
            continue;
        }
        let place = places[position];
        let mut changed = all.clone();
        assert!(alter(&mut changed[place]));
        let difference = replayed(&with_events(&record, &changed)).difference.unwrap();
        assert_eq!(
            (difference.event, &difference.recorded),
            (place as u64, &changed[place])
        );
    }
    let distinct: std::collections::HashSet<_> = kinds.into_iter().collect();
    assert_eq!(distinct.len(), 8);
}

#[test]
fn an_output_that_is_missing_is_a_difference() {
    let record = session();
    let mut all = events(&record);
    let place = all.iter().position(|event| matches!(event, Event::Map { .. })).unwrap();
    all.remove(place);
    let missing = replayed(&with_events(&record, &all)).difference.unwrap();
    assert_eq!((missing.event, &missing.recorded), (place as u64, &all[place]));
    assert!(
        missing.replayed.starts_with("map by connection"),
        "{}",
        missing.replayed
    );
}

#[test]
fn a_prefix_is_a_record_also_while_a_vmm_is_asked() {
    let record = session();
    let whole = equal(&record);
    for limit in 0..=whole.entries {
        let mut copy = Vec::new();
        copy_prefix(&record[..], &mut copy, limit).unwrap();
        let report = equal(&copy);
        assert_eq!(report.entries, limit);
        assert_eq!(replay(Cursor::new(record.clone()), Some(limit)).unwrap(), report);
    }
}

#[test]
fn a_detach_that_is_left_out_is_found_again() {
    let host = Host::recorded(&["a", "b"]);
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    exchange(&mut a, &mut b);
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(dmb.token).unwrap();
    a.detach(dmb.token).unwrap();
    exchange(&mut a, &mut b);
    let record = host.finish_record();
    let whole = equal(&record);
    let kind = Finding::DmbFreedAttached.name();
    let [found] = &whole.findings[..] else {
        panic!("{whole}")
    };
    assert_eq!((found.kind, found.number), (kind, dmb.offset / CHUNK_SIZE));
    assert!(found.text.starts_with("a: dmb "), "{}", found.text);
    let open = || Ok(Cursor::new(record.clone()));
    let prefix = shortest_prefix(open, |found| found.kind == kind).unwrap().unwrap();
    assert_eq!(prefix.entries, found.entry + 1);
    assert!(prefix.entries < whole.entries);
    let shorter = replay(open().unwrap(), Some(prefix.entries - 1)).unwrap();
    assert_eq!(shorter.findings, []);
    assert_eq!(shortest_prefix(open, |found| found.kind == "bad_ring").unwrap(), None);
}

/// The records in `tests/records`; the first is of a session of this test program, which `UPDATE=1` records again. The
/// other is recorded by a test with guests meanwhile.
#[test]
fn kept_records_are_replayed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records");
    let mut names = vec!["driver.record", "linux.record"];
    if std::env::var_os("UPDATE").is_some() {
        let mut best = Vec::new();
        copy_prefix(&session()[..], &mut best, u64::MAX).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("driver.record"), best).unwrap();
        names.truncate(1);
    }
    for name in names {
        let report = equal(&std::fs::read(directory.join(name)).unwrap());
        assert!(
            report.counts.requests > 10 && report.counts.events > 2,
            "{name}: {report}"
        );
    }
}

#[test]
fn faults_are_replayed() {
    let mut faulty = Faulty::at(Host::recorded(&["a", "b"]));
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let of_a = |kind: &str| format!("[[fault]]\nguest = \"a\"\ncount = 1\nkind = \"{kind}\"\n");
    faulty.apply(&(of_a("request_refused") + "status = \"no_spc\""));
    assert_eq!(a.alloc_for_peer(b.gid(), 5000).unwrap_err(), Status::NoSpc);
    faulty.apply(&(of_a("request_late") + "delay = \"5ms\""));
    a.query_gid(b.gid()).unwrap();
    faulty.apply(&of_a("map_refused"));
    assert_eq!(a.alloc_for_peer(b.gid(), 5000).unwrap_err(), Status::Err);
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    let attached = b.attach(owned.token).unwrap();
    let bell = GuestEvent::Doorbells(vec![(owned.offset / CHUNK_SIZE) as u32]);
    faulty.apply(&of_a("bell_lost"));
    b.ring(attached.offset);
    eventually("the bell is lost", || faulty.strikes() == [1]);
    for (kind, bells) in [("late", 1), ("spurious", 2)] {
        faulty.apply(&(of_a(&format!("bell_{kind}")) + "delay = \"20ms\""));
        b.ring(attached.offset);
        (0..bells).for_each(|_| assert_eq!(a.expect_event(), bell));
    }
    faulty.apply(&of_a("event_lost"));
    b.send_message(a.gid(), 1, 2).unwrap();
    b.send_message(a.gid(), 3, 4).unwrap();
    assert_eq!(a.expect_event(), GuestEvent::Message(b.gid(), 3, 4));
    faulty.apply(&(of_a("vanish") + "on = \"now\""));
    assert_eq!(b.expect_event(), GuestEvent::PeerGone(a.gid()));
    faulty.apply("");
    a.hang_up();
    b.kill();
    faulty.host.expect_empty();
    let record = faulty.host.finish_record();
    equal(&record);
    let all = events(&record);
    let strikes = |event: &&Event| matches!(event, Event::Strike { guest: 0, .. });
    // All but the end of the session, which is an entry.
    assert_eq!(all.iter().filter(strikes).count(), 7);
    let late = |event: &&Event| matches!(event, Event::Enter(Entry::Late(_)));
    assert_eq!(all.iter().filter(late).count(), 2);
    let place = |entry| all.iter().position(|event| *event == Event::Enter(entry));
    let end = place(Entry::Reset { guest: 0 }).unwrap();
    // The record may end before the connection.
    assert!(place(Entry::Close(0)).is_none_or(|close| end < close));
}

#[test]
fn a_record_on_demand_begins_with_an_empty_fabric() {
    let host = Host::recordable(&["a", "b"]);
    let seats = ["a", "b"].map(|name| host.seat(name));
    let boot = || seats.each_ref().map(|seat| seat.boot());
    // No VMM has been there.
    assert_eq!(host.begin_record(), Ok(Begun::Now));
    let [mut a, mut b] = boot();
    exchange(&mut a, &mut b);
    assert_eq!(host.begin_record(), Err(OrderError::Recorded));
    let first = host.finish_record();
    let report = equal(&first);
    assert_eq!((report.counts.requests, report.counts.doorbells), (7, 1));

    // The guests have sessions, and one leaves a DMB: the record begins when both are gone.
    exchange(&mut a, &mut b);
    a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    assert_eq!(host.begin_record(), Ok(Begun::Later));
    assert_eq!(host.begin_record(), Err(OrderError::Ordered));
    let seen = [a.gid(), b.gid()];
    a.kill();
    exchange_alone(&mut b);
    assert!(!host.has_record());
    b.kill();
    eventually("the record begins", || host.has_record());
    let [mut a, mut b] = boot();
    assert!(!seen.contains(&a.gid()) && !seen.contains(&b.gid()));
    exchange(&mut a, &mut b);
    // A session of the record that ends in it.
    a.kill();
    assert!(matches!(b.expect_event(), GuestEvent::PeerGone(_)));
    let mut a = seats[0].boot();
    exchange(&mut a, &mut b);
    let second = host.finish_record();
    assert_ne!(first, second);
    let report = equal(&second);
    assert_eq!(report.findings, []);
    assert_eq!((report.counts.requests, report.counts.doorbells), (13, 2));
    assert_eq!(events(&second)[0], Event::Enter(Entry::Create));
}

#[test]
fn an_order_for_a_record_can_be_taken_back() {
    let host = Host::recordable(&["a", "b"]);
    let seats = ["a", "b"].map(|name| host.seat(name));
    assert!(!host.end_record());
    let a = seats[0].boot();
    assert_eq!(host.begin_record(), Ok(Begun::Later));
    assert!(host.end_record());
    a.kill();
    host.expect_empty();
    let mut b = seats[1].boot();
    exchange_alone(&mut b);
    assert!(!host.has_record());
    b.kill();
    host.expect_empty();
    // Its workers may end after its session.
    if host.begin_record() == Ok(Begun::Later) {
        eventually("the record begins", || host.has_record());
    }
    exchange_alone(&mut seats[0].boot());
    assert!(host.end_record());
    assert_eq!(equal(&host.finish_record()).counts.requests, 3);
}

#[test]
fn what_a_fault_has_delayed_before_a_record_is_not_in_it() {
    let mut faulty = Faulty::at(Host::recordable(&["a", "b"]));
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    let attached = b.attach(owned.token).unwrap();
    faulty.apply("[[fault]]\nguest = \"a\"\ncount = 1\nkind = \"bell_late\"\ndelay = \"200ms\"\n");
    b.ring(attached.offset);
    eventually("the bell is delayed", || faulty.strikes() == [1]);
    assert_eq!(faulty.host.begin_record(), Ok(Begun::Later));
    let seats = [&a, &b].map(|guest| guest.seat.clone().unwrap());
    a.kill();
    b.kill();
    eventually("the record begins", || faulty.host.has_record());
    let [mut a, mut b] = seats.map(|seat| seat.boot());
    faulty.apply("[[fault]]\nguest = \"a\"\ncount = 1\nkind = \"bell_late\"\ndelay = \"500ms\"\n");
    exchange(&mut a, &mut b);
    let record = faulty.host.finish_record();
    equal(&record);
    let late = |event: &&Event| matches!(event, Event::Enter(Entry::Late(_)));
    let all = events(&record);
    assert_eq!(
        all.iter().filter(late).collect::<Vec<_>>(),
        [&Event::Enter(Entry::Late(0))]
    );
}

#[test]
fn a_record_that_no_recorder_makes_is_replayed_to_its_fault() {
    let record = session();
    let all = events(&record);
    let mut random = fastrand::Rng::with_seed(5);
    let mut outcomes = [0; 3];
    for _ in 0..300 {
        let mut events = all.clone();
        for _ in 0..random.usize(1..4) {
            mutate(&mut events, &mut random);
        }
        let outcome = match replay(Cursor::new(with_events(&record, &events)), None) {
            Err(error) => {
                assert!(matches!(error, RecordError::Corrupt(_)), "{error:?}");
                0
            }
            Ok(report) => 1 + usize::from(report.difference.is_none()),
        };
        outcomes[outcome] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// Changes an event at random: an input, an output, or the order.
fn mutate(events: &mut Vec<Event>, random: &mut fastrand::Rng) {
    let at = random.usize(..events.len());
    let other = random.usize(..events.len());
    match &mut events[at] {
        Event::Request { bytes: Some(bytes), .. } if !bytes.is_empty() => {
            let index = random.usize(..bytes.len());
            bytes[index] ^= 1 << random.u8(..8);
        }
        Event::Random(number) => *number ^= 1 << random.u8(..64),
        Event::Collect { rung, .. } => rung.push(random.u32(..)),
        Event::Enter(Entry::Answer { ok, .. }) => *ok = !*ok,
        Event::Enter(Entry::Control(connection) | Entry::Stop(connection)) => *connection = random.u32(..4),
        _ => match random.u8(..3) {
            0 => events.swap(at, other),
            1 => drop(events.remove(at)),
            _ => events.insert(at, events[other].clone()),
        },
    }
}
