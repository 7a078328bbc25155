//! Records of RDMA sessions, and their replay.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::fuzz::{iterations, wqes};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::wait::eventually;
use vhost_daemon::fault::Plan;
use vhost_daemon::record::{RecordError, Turns};
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::net::Switch;
use vhost_nic::record::{Entry, Event, Reader, Writer};
use vhost_nic::replay::{Report, copy_prefix, replay, shortest_prefix};
use zerocopy::IntoBytes;

use crate::inspect::Inspect;
use crate::loss::everything_once;
use crate::pair::Pair;
use crate::recorded::{Recording, equal, recorded_machine};

/// Two guests at one switch, both recorded, with a connected queue pair each.
fn pair() -> (Pair, [Recording; 2]) {
    let how = Connection {
        log_depth: 3,
        ..Connection::default()
    };
    Pair::recorded(Shape::new(service::RC), &how)
}

/// Replays a record whole. Panics if it cannot be read.
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

/// The records of two guests that exchanged everything once.
fn session() -> [Vec<u8>; 2] {
    let (mut pair, recordings) = pair();
    everything_once(&mut pair, 7);
    pair.end();
    recordings.map(Recording::finish)
}

#[test]
fn a_session_is_replayed_byte_for_byte() {
    let (mut pair, recordings) = pair();
    for seed in 0..3 {
        everything_once(&mut pair, seed);
    }
    // In the other direction, and one that waits for its receive.
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead] {
        let request = Request::remote(opcode, pair.b.data(0, 9000), pair.a.memory.at(0), pair.a.memory.key);
        let index = pair.b.qp.post(&request);
        pair.b.qp.sent(opcode, index);
    }
    let index = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 100)));
    let into = pair.b.part(0, 100);
    let receive = pair.b.qp.receive(&[into]);
    pair.a.qp.sent(WqeOpcode::Send, index);
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, 100);
    let machines = [&pair.a, &pair.b].map(|end| end.node.hca.machine.clone());
    pair.end();
    let commands = machines.map(|machine| machine.nic().summary().commands);
    let reports = recordings.map(|recording| equal(&recording.finish()));
    assert_eq!([reports[0].counts.commands, reports[1].counts.commands], commands);
    assert_eq!(reports[0].counts.frames_out, reports[1].counts.frames_in);
    assert_eq!(reports[1].counts.frames_out, reports[0].counts.frames_in);
    // Each direction had more than the 18 packets of three rounds of three messages of two packets.
    assert!(
        reports.iter().all(|report| report.counts.frames_out > 18),
        "{reports:?}"
    );
    assert!(reports.iter().all(|report| report.findings.is_empty()));
}

#[test]
fn a_loopback_is_replayed() {
    let (machine, recording) = recorded_machine(&Switch::new(), 1, &Arc::default(), |_| {});
    let node = Node::open(machine, 1);
    let mut qp = QueuePair::create(&node, Shape::new(service::RC)).unwrap();
    let how = Connection {
        psn: (5, 5),
        ..Connection::default()
    };
    qp.connect(&node, &node, qp.number, &how).unwrap();
    let memory = node.region(16 << 10);
    memory.write(0, &[0x5a; 5000]);
    let data = vec![Data::Memory((memory.start, 5000, memory.key))];
    let index = qp.post(&Request::remote(
        WqeOpcode::RdmaWrite,
        data,
        memory.at(8000),
        memory.key,
    ));
    qp.sent(WqeOpcode::RdmaWrite, index);
    assert_eq!(memory.read(8000, 5000), [0x5a; 5000]);
    qp.destroy(&node).unwrap();
    memory.destroy(&node.hca).unwrap();
    node.close();
    let report = equal(&recording.finish());
    assert_eq!((report.counts.frames_in, report.counts.frames_out), (0, 0));
}

/// Changes an output of the NIC. Returns whether the event is one.
fn alter(event: &mut Event) -> bool {
    match event {
        Event::Leave(data) if !data.is_empty() => data[0] ^= 1,
        Event::MemoryWrite { data, .. } => *data.last_mut().unwrap() ^= 1,
        Event::Interrupt { vector, .. } => *vector ^= 1,
        Event::Send(frames) => frames[0][14] ^= 1,
        Event::Time(_) => *event = Event::Sent,
        _ => return false,
    }
    true
}

#[test]
fn the_first_difference_is_reported_with_its_place() {
    let [record, _] = session();
    let all = events(&record);
    let mut kinds = 0;
    for kind in [
        |event: &Event| matches!(event, Event::Leave(data) if !data.is_empty()),
        |event: &Event| matches!(event, Event::MemoryWrite { .. }),
        |event: &Event| matches!(event, Event::Interrupt { .. }),
        |event: &Event| matches!(event, Event::Send(_)),
        |event: &Event| matches!(event, Event::Time(_)),
    ] {
        // One from the middle.
        let places: Vec<usize> = (0..all.len()).filter(|&index| kind(&all[index])).collect();
        let place = places[places.len() / 2];
        let mut changed = all.clone();
        assert!(alter(&mut changed[place]));
        let difference = replayed(&with_events(&record, &changed)).difference.unwrap();
        assert_eq!(
            (difference.event, &difference.recorded),
            (place as u64, &changed[place])
        );
        kinds += 1;
    }
    assert_eq!(kinds, 5);
}

#[test]
fn an_output_that_is_missing_or_superfluous_is_a_difference() {
    let [record, _] = session();
    let mut all = events(&record);
    let place = all
        .iter()
        .position(|event| matches!(event, Event::MemoryWrite { .. }))
        .unwrap();
    let write = all.remove(place);
    let missing = replayed(&with_events(&record, &all)).difference.unwrap();
    assert_eq!((missing.event, &missing.recorded), (place as u64, &all[place]));
    all.insert(place, write.clone());
    all.insert(place, write);
    let superfluous = replayed(&with_events(&record, &all)).difference.unwrap();
    assert_eq!(superfluous.event, place as u64 + 1);
}

/// Whether the first entries of a record are replayed as recorded.
fn is_equal_until(record: &[u8], entries: u64) -> bool {
    let report = replay(Cursor::new(record.to_vec()), Some(entries)).unwrap();
    report.difference.is_none() && entries > 0 && report.entries == entries
}

#[test]
fn a_record_that_is_cut_off_or_damaged_is_an_error() {
    let [record, _] = session();
    for length in [0, 7, 8, 15, 16, 40, record.len() / 2, record.len() - 1] {
        let error = replay(Cursor::new(record[..length].to_vec()), None).unwrap_err();
        let expected = match length {
            0..16 => matches!(error, RecordError::NoRecord(_)),
            16..300 => matches!(error, RecordError::Truncated { entries: 0 }),
            // The entries before the cut are there.
            _ => matches!(error, RecordError::Truncated { entries } if is_equal_until(&record[..length], entries)),
        };
        assert!(expected, "{length}: {error:?}");
    }
    let whole = equal(&record);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..40 {
        let mut damaged = record.clone();
        let at = random.usize(..damaged.len());
        damaged[at] ^= 1 << random.u8(..8);
        match replay(Cursor::new(damaged), None) {
            // A match in compressed data may have another distance and the same bytes; names are free.
            Ok(report) => assert!(
                report == whole || report.difference.is_some(),
                "{at} of {}",
                record.len()
            ),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn a_prefix_is_a_record() {
    let [record, _] = session();
    let whole = equal(&record);
    for limit in [0, 1, whole.entries / 2, whole.entries] {
        let part = replay(Cursor::new(record.clone()), Some(limit)).unwrap();
        assert_eq!((part.entries, &part.difference), (limit, &None));
        let mut copy = Vec::new();
        copy_prefix(&record[..], &mut copy, limit).unwrap();
        assert_eq!(equal(&copy), part);
    }
}

/// Changes an event at random: an input, an output, or the order.
fn mutate(events: &mut Vec<Event>, random: &mut fastrand::Rng) {
    let at = random.usize(..events.len());
    let other = random.usize(..events.len());
    let flip = |data: &mut [u8], random: &mut fastrand::Rng| {
        if let Some(byte) = random.choice(data) {
            *byte ^= 1 << random.u8(..8);
        }
    };
    match &mut events[at] {
        Event::MemoryRead { answer: Ok(data), .. } => flip(data, random),
        Event::MemoryRead { answer, .. } => *answer = Ok(Default::default()),
        Event::Enter(Entry::Write { data, .. }) => flip(data, random),
        Event::Enter(Entry::Read { length, .. }) => *length ^= 1 << random.u8(..32),
        Event::Enter(Entry::Receive(frames)) => frames.iter_mut().for_each(|frame| flip(frame, random)),
        Event::Time(time) => *time = random.u64(..),
        _ => match random.u8(..3) {
            0 => events.swap(at, other),
            1 => drop(events.remove(at)),
            _ => events.insert(at, events[other].clone()),
        },
    }
}

#[test]
fn a_record_that_no_recorder_makes_is_replayed_to_its_fault() {
    let [record, _] = session();
    let outcomes = replay_mutations(&record, iterations(3000));
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn a_boot_that_no_recorder_makes_is_replayed_to_its_fault() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records");
    for (name, count) in [
        ("linux-6.1.record", 30),
        ("linux-6.12.record", 30),
        ("linux-7.x.record", 300),
    ] {
        let record = std::fs::read(directory.join(name)).unwrap();
        let [_, differ, _] = replay_mutations(&record, iterations(count));
        assert!(differ > 0, "{name}");
    }
}

/// Replays mutations of a record. Returns how many cannot be read, differ, and go unnoticed.
fn replay_mutations(record: &[u8], count: u64) -> [usize; 3] {
    let all = events(record);
    let mut random = fastrand::Rng::with_seed(5);
    let mut outcomes = [0; 3];
    for _ in 0..count {
        let mut events = all.clone();
        (0..random.usize(1..4)).for_each(|_| mutate(&mut events, &mut random));
        let outcome = match replay(Cursor::new(with_events(record, &events)), None) {
            Err(error) => {
                assert!(matches!(error, RecordError::Corrupt(_)), "{error:?}");
                0
            }
            Ok(report) => 1 + usize::from(report.difference.is_none()),
        };
        outcomes[outcome] += 1;
    }
    outcomes
}

/// The records in `tests/records`; the first is of a session of this test program, which `UPDATE=1` records again.
/// Those of guests are recorded by their own tests meanwhile.
#[test]
fn kept_records_are_replayed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records");
    let update = std::env::var_os("UPDATE").is_some();
    if update {
        let [record, _] = session();
        let mut best = Vec::new();
        copy_prefix(&record[..], &mut best, u64::MAX).unwrap();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("driver.record"), best).unwrap();
    }
    let files = std::fs::read_dir(&directory).unwrap();
    let mut names = Vec::new();
    for file in files.map(|file| file.unwrap().path()) {
        if update && !file.ends_with("driver.record") {
            continue;
        }
        let report = equal(&std::fs::read(&file).unwrap());
        assert!(
            report.counts.commands > 30 && report.counts.frames_in > 5,
            "{}: {report}",
            file.display()
        );
        names.push(file.file_name().unwrap().to_owned());
    }
    names.sort_unstable();
    let all = [
        "driver.record",
        "linux-6.1.record",
        "linux-6.12.record",
        "linux-7.x.record",
    ];
    assert_eq!(names, if update { &all[..1] } else { &all[..] });
}

/// Asserts that the replay of a record shows a finding, and that the shortest prefix that does ends with its entry.
#[track_caller]
fn repeats(record: &[u8], kind: Finding, number: u64) -> Report {
    use vhost_daemon::finding::Kind;
    let report = equal(record);
    let found = report.findings.iter().find(|found| found.kind == kind.name()).unwrap();
    assert_eq!(found.number, number);
    let open = || Ok(Cursor::new(record.to_vec()));
    let prefix = shortest_prefix(open, |found| found.kind == kind.name())
        .unwrap()
        .unwrap();
    assert_eq!(prefix.entries, found.entry + 1);
    assert!(prefix.entries < report.entries);
    let shorter = replay(open().unwrap(), Some(prefix.entries - 1)).unwrap();
    assert!(shorter.findings.iter().all(|found| found.kind != kind.name()));
    assert_eq!(shortest_prefix(open, |found| found.kind == "cq_overrun").unwrap(), None);
    prefix.report
}

#[test]
fn a_doorbell_before_its_wqe_is_found_again() {
    let (mut pair, recordings) = pair();
    let mut control = ControlSegment::default();
    control.opmod_idx_opcode.set(WqeOpcode::RdmaWrite as u32);
    control.qpn_ds.set(pair.a.qp.number << 8 | 1);
    pair.a.qp.ring_value(*control.as_bytes().first_chunk().unwrap());
    let number = pair.a.qp.number.into();
    let index = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    pair.end();
    let [record, other] = recordings.map(Recording::finish);
    let report = repeats(&record, Finding::DoorbellBeforeWqe, number);
    // The prefix ends with the doorbell.
    let (_, last) = report.last.last().unwrap();
    assert_eq!(*last, Event::Leave(Default::default()));
    assert!(
        report
            .last
            .iter()
            .any(|(_, event)| event.to_string().contains("doorbell_before_wqe"))
    );
    assert_eq!(equal(&other).findings, []);
}

#[test]
fn a_key_destroyed_under_a_posted_read_is_found_again() {
    let (mut pair, recordings) = pair();
    let region = pair.a.node.region(4096);
    let (address, key) = (region.at(8), region.key);
    let request = pair.request(WqeOpcode::RdmaRead, vec![Data::Memory((address, 100, key))], 0);
    let read = pair.a.qp.put(&request);
    region.destroy(&pair.a.node.hca).unwrap();
    pair.a.qp.ring();
    assert_eq!(pair.a.qp.send_error(read), 4, "local protection error");
    pair.end();
    let [record, _] = recordings.map(Recording::finish);

    repeats(&record, Finding::StaleKey, key.into());
}

#[test]
fn random_work_is_replayed() {
    for seed in 0..iterations(200) {
        let (switch, turns) = (Switch::new(), Arc::<Turns>::default());
        let mut random = fastrand::Rng::with_seed(seed);
        let input: Vec<u8> = (0..2000).map(|_| random.u8(..)).collect();
        let mut recordings = Vec::new();
        let nodes = [1, 2].map(|number| {
            let (machine, recording) = recorded_machine(&switch, number, &turns, |config| {
                config.check_wqes = seed % 2 == 0;
            });
            recordings.push(recording);
            Node::open(machine, number)
        });
        wqes::run(nodes, &input);
        for recording in recordings {
            equal(&recording.finish());
        }
    }
}

#[test]
fn two_recorded_guests_send_at_once() {
    let (mut pair, recordings) = pair();
    let posted: Vec<_> = (0..20)
        .map(|_| {
            let back = Request::remote(
                WqeOpcode::RdmaWrite,
                pair.b.data(0, 5000),
                pair.a.memory.at(20_000),
                pair.a.memory.key,
            );
            let forth = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 5000), 20_000);
            (pair.a.qp.post(&forth), pair.b.qp.post(&back))
        })
        .collect();
    for (forth, back) in posted {
        pair.a.qp.sent(WqeOpcode::RdmaWrite, forth);
        pair.b.qp.sent(WqeOpcode::RdmaWrite, back);
    }
    pair.end();
    for recording in recordings {
        equal(&recording.finish());
    }
}

#[test]
fn what_waits_for_time_is_replayed() {
    let (switch, turns) = (Switch::new(), Arc::<Turns>::default());
    let [(a, of_a), (b, of_b)] = [1, 2].map(|number| {
        let (machine, recording) = recorded_machine(&switch, number, &turns, |config| {
            config.blue_flame = Some(Duration::from_micros(200));
        });
        (Node::open(machine, number), recording)
    });
    let qp = |node: &Node| QueuePair::create(node, Shape::new(service::RC)).unwrap();
    let (mut sender, mut receiver) = (qp(&a), qp(&b));
    connect((&a, &sender), (&b, &receiver), &Connection::default());
    let (from, to) = (a.region(4096), b.region(4096));
    let part = Data::Memory((from.start, 100, from.key));
    // An RNR NAK, and its delay.
    let index = sender.post(&Request::new(WqeOpcode::Send, vec![part]));
    eventually("an RNR NAK", || a.hca.machine.nic().summary().port.received > 0);
    let receive = receiver.receive(&[(to.start, 100, to.key)]);
    sender.sent(WqeOpcode::Send, index);
    receiver.received(CqeOpcode::ResponderSend, receive, 100);
    // WQEs through a doorbell register, of which one stays incomplete until its time is up.
    for lost in [usize::MAX, usize::MAX, 3] {
        let request = Request::remote(WqeOpcode::RdmaWrite, vec![Data::Inline(vec![7; 8])], to.start, to.key);
        let wqe = sender.wqe(&request);
        let index = sender.put_bytes(&wqe);
        sender.ring_with_loss(0, &wqe, lost);
        sender.sent(WqeOpcode::RdmaWrite, index);
    }
    sender.destroy(&a).unwrap();
    receiver.destroy(&b).unwrap();
    from.destroy(&a.hca).unwrap();
    to.destroy(&b.hca).unwrap();
    a.close();
    b.close();
    for recording in [of_a, of_b] {
        let report = equal(&recording.finish());
        assert!(report.counts.frames_in > 2 && report.counts.frames_out > 2, "{report}");
    }
}

/// Number of strikes of a kind in a record.
fn strikes(record: &[u8], kind: &str) -> usize {
    let name = format!("\"kind\":\"{kind}\"");
    let is_strike = |event: &&Event| matches!(event, Event::Strike { fault, .. } if fault.contains(&name));
    events(record).iter().filter(is_strike).count()
}

#[test]
fn faults_of_completions_memory_and_the_wire_are_replayed() {
    let how = Connection {
        log_depth: 3,
        ..Connection::default()
    };
    let (mut pair, faults, recordings) = Pair::faulty_recorded(Shape::new(service::RC), &how);
    let apply = |plan: &str| faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
    // Of the wire: their effects are frames that arrive, or not.
    let kinds = [
        "loss\"\nprobability = 0.02",
        "duplicate\"\nprobability = 0.1",
        "delay\"\ndelay = \"50us\"",
    ];
    for kind in kinds {
        apply(&format!("seed = 1\n[[fault]]\nkind = \"frame_{kind}"));
        everything_once(&mut pair, 3);
        everything_once(&mut pair, 4);
        assert!(faults.report()[0].strikes > 0, "{kind}");
    }
    apply("[[fault]]\nkind = \"dma_failed\"\nguest = \"nic1\"\npurpose = \"gather\"\ncount = 1");
    everything_once(&mut pair, 5);
    assert_eq!(faults.report()[0].strikes, 1);
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    for (plan, second_only) in [("cqe_late\"\ndelay = \"20ms\"", false), ("cqe_lost\"", true)] {
        apply(&format!("[[fault]]\nguest = \"nic1\"\ncount = 1\nkind = \"{plan}"));
        let [first, second] = [0, 1].map(|_| pair.a.qp.post(&request));
        pair.a.qp.sent(WqeOpcode::RdmaWrite, second);
        if !second_only {
            pair.a.qp.sent(WqeOpcode::RdmaWrite, first);
        }
    }
    apply("[[fault]]\nkind = \"cqe_error\"\nguest = \"nic1\"\nsyndrome = 0x22\ncount = 1");
    let counter = pair.a.qp.post(&request);
    assert_eq!(pair.a.qp.send_error(counter), 0x22);
    eventually("the error state", || {
        pair.a.qp.query(&pair.a.node).unwrap().state() == 6
    });
    let number = pair.b.qp.number;
    apply(&format!(
        "[[fault]]\nkind = \"qp_error\"\nguest = \"nic2\"\non = \"command\"\nqp = {number}\ncount = 1"
    ));
    pair.b.qp.query(&pair.b.node).unwrap();
    eventually("the error state", || {
        pair.b.qp.query(&pair.b.node).unwrap().state() == 6
    });
    apply("");
    pair.end();
    let [a, b] = recordings.map(Recording::finish);
    equal(&a);
    equal(&b);
    for kind in ["cqe_late", "cqe_lost", "cqe_error"] {
        assert_eq!((strikes(&a, kind), strikes(&b, kind)), (1, 0), "{kind}");
    }
    // The frames and the memory are behind the recorder.
    assert_eq!((strikes(&a, "frame_loss"), strikes(&a, "dma_failed")), (0, 0));
    let entries = |of: fn(&Entry) -> bool| {
        let is_entry = |event: &&Event| matches!(event, Event::Enter(entry) if of(entry));
        [&a, &b].map(|record| events(record).iter().filter(is_entry).count())
    };
    // The late CQE, and the error of the queue pair behind the error CQE.
    assert_eq!(entries(|entry| matches!(entry, Entry::Late(_))), [2, 0]);
    assert_eq!(entries(|entry| matches!(entry, Entry::Fault(_))), [0, 1]);
}

#[test]
fn a_record_without_one_of_its_strikes_is_a_difference() {
    let (mut pair, faults, recordings) = Pair::faulty_recorded(Shape::new(service::RC), &Connection::default());
    let plan = "[[fault]]\nkind = \"cqe_lost\"\nguest = \"nic1\"\ncount = 1";
    faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0);
    pair.a.qp.post(&request);
    let second = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, second);
    pair.end();
    let [record, _] = recordings.map(Recording::finish);
    equal(&record);
    let mut all = events(&record);
    let place = all
        .iter()
        .position(|event| matches!(event, Event::Strike { .. }))
        .unwrap();
    all.remove(place);
    let difference = replayed(&with_events(&record, &all)).difference.unwrap();
    // The CQE is written, in the entry of the strike.
    let (mut depth, mut entry) = (0, 0);
    for event in &all[..place] {
        match event {
            Event::Enter(_) => depth += 1,
            Event::Leave(_) => {
                depth -= 1;
                entry += u64::from(depth == 0);
            }
            _ => {}
        }
    }
    assert_eq!((difference.entry, difference.event >= place as u64), (entry, true));
}
