use std::fs;
use std::path::Path;

use super::super::event::Events;
use super::super::recorder::{Tracer, set_flight_recorder};
use super::super::stream::Event;
use super::*;
use crate::program::Program;
use crate::trace::read_perfetto;

crate::trace_events! {
    /// Events of a port.
    enum PortEvent {
        /// A frame left.
        FrameOut = "frame_out" of "port" [length],
        /// A frame was dropped.
        Drop = "drop" of "port" [reason],
    }
}

/// A timeline of labels without causes.
struct Labels;

impl Timeline for Labels {
    fn label(&self, event: &Event) -> std::borrow::Cow<'static, str> {
        format!(
            "{} {}",
            PortEvent::EVENTS[usize::from(event.event)].name,
            event.arguments[0]
        )
        .into()
    }

    fn track(&self, _kind: &str, _object: u32) -> Option<std::borrow::Cow<'static, str>> {
        None
    }

    fn duration(&self, _event: &Event) -> u64 {
        0
    }

    fn parent(&self, _index: usize) -> Option<usize> {
        None
    }
}

fn record(event: PortEvent, argument: u32) {
    Tracer::new(0).record(event, 7, || [argument, 0, 0, 0]);
}

/// Waits for a dump, and returns the labels of its events.
fn labels(directory: &Path, number: u32) -> Vec<String> {
    let path = directory.join(format!("test-{number:06}.pftrace"));
    while !path.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    let events = read_perfetto(&fs::read(path).unwrap());
    for event in &events {
        assert_eq!(event.track, ["a", "port 0x7"]);
    }
    events.into_iter().map(|event| event.label).collect()
}

/// In one test, because a process can arm a trigger only once.
#[test]
fn a_dump_has_the_event_that_asked_for_it_and_those_before() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let program = Program {
            name: "test",
            version: "0",
        };
        let options = DumpOptions {
            directory: directory.path().to_owned(),
            files: 3,
            interval: Duration::from_secs(3600),
            header: Header::new(program, &["a".to_owned()], PortEvent::EVENTS),
            wants: Box::new(|event, object, [reason, ..]| {
                event == PortEvent::Drop.index() && object == 7 && *reason > 1
            }),
        };
        Dumper::start(options, DumpSignal::register().unwrap(), |_| Labels)
    };
    record(PortEvent::Drop, 9);
    set_flight_recorder(true);
    let dumper = start().unwrap();
    for length in 1..4 {
        record(PortEvent::FrameOut, length);
    }
    // Not such a reason.
    record(PortEvent::Drop, 1);
    record(PortEvent::Drop, 2);
    let mut expected: Vec<String> = ["frame_out 1", "frame_out 2", "frame_out 3", "drop 1", "drop 2"]
        .map(str::to_owned)
        .into();
    assert_eq!(labels(directory.path(), 1), expected);

    // The next within the interval waits; a signal does not.
    record(PortEvent::Drop, 3);
    signal_hook::low_level::raise(SIGUSR1).unwrap();
    expected.push("drop 3".to_owned());
    assert_eq!(labels(directory.path(), 2), expected);

    // What was asked for last is written at the end.
    record(PortEvent::Drop, 4);
    drop(dumper);
    expected.push("drop 4".to_owned());
    assert_eq!(labels(directory.path(), 3), expected);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    assert_eq!(start().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}
