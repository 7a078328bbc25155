//! The flight recorder of a daemon, and the dumps of `--trace-dump`.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::args::CommonArgs;
use crate::finding::KindInfo;
use crate::program::Program;
use crate::trace::{
    DEFAULT_RING_BYTES, DumpOptions, DumpSignal, Dumper, EventInfo, Header, Timeline, Trace, Wants, set_ring_bytes,
    start_flight_recorder,
};

/// Shortest time from one dump to the next that an event asks for.
const INTERVAL: Duration = Duration::from_secs(10);
/// Event that a finding is recorded as; its object is the row of the kind.
const FINDING: &str = "finding";
/// Event that the strike of a fault is recorded as.
const FAULT: &str = "fault";
/// Precedes the kind of a finding.
const KIND: &str = "finding=";
/// Stands for no event.
const SIGNAL: &str = "signal";

/// A failure of `--trace-dump`.
#[derive(Debug, Error)]
pub enum TraceDumpError {
    /// No event has this name.
    #[error("--trace-dump-on {name}: there is no such event; the events are signal, {}", .known.join(", "))]
    Unknown {
        /// The name as given.
        name: String,
        /// The names of the daemon's events.
        known: Vec<String>,
    },
    /// The dumps cannot be written.
    #[error("cannot write dumps to {}", .directory.display())]
    Start {
        /// The directory.
        directory: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}

/// Takes SIGUSR1 for the dumps, if the options ask for them: before there is a socket by which others see the daemon.
pub fn await_dump_signal(args: &CommonArgs) -> Result<Option<DumpSignal>, TraceDumpError> {
    let register = |directory: &PathBuf| {
        DumpSignal::register().map_err(|source| TraceDumpError::Start {
            directory: directory.clone(),
            source,
        })
    };
    args.trace_dump.as_ref().map(register).transpose()
}

/// An event with arguments that make it one of another name.
#[derive(Debug, Clone, Copy)]
pub struct NamedEvent {
    /// Name on the command line.
    pub name: &'static str,
    /// Index of the event.
    pub event: u16,
    /// Whether its arguments are such.
    pub is: fn(&[u32; 4]) -> bool,
}

/// The traces of a daemon.
#[derive(Debug)]
pub struct TraceSource<'a, T> {
    /// Identification of the daemon.
    pub program: Program,
    /// Names of the guests, by number.
    pub guests: &'a [String],
    /// Events of the daemon.
    pub events: &'static [EventInfo],
    /// Catalogues of findings. An event has the row of its kind, counted through all of them.
    pub findings: &'static [&'static [KindInfo]],
    /// Further events that may ask for a dump.
    pub named: &'static [NamedEvent],
    /// Reading of a trace.
    pub timeline: fn(&Trace) -> T,
}

impl<T: Timeline + 'static> TraceSource<'_, T> {
    /// Starts the flight recorder and the dumps, as far as the options ask for them; these need the signal of
    /// [`await_dump_signal`].
    pub fn start(&self, args: &CommonArgs, signal: Option<DumpSignal>) -> Result<Option<Dumper>, TraceDumpError> {
        let wants = self.wants(&args.trace_dump_on)?;
        if args.flight_recorder.is_some() || args.trace_dump.is_some() {
            set_ring_bytes(args.flight_recorder.unwrap_or(DEFAULT_RING_BYTES));
            start_flight_recorder();
        }
        let (Some(directory), Some(signal)) = (args.trace_dump.clone(), signal) else {
            return Ok(None);
        };
        let options = DumpOptions {
            directory: directory.clone(),
            files: args.trace_dump_files.into(),
            interval: INTERVAL,
            header: Header::new(self.program, self.guests, self.events),
            wants,
        };
        let dumper = Dumper::start(options, signal, self.timeline);
        dumper
            .map(Some)
            .map_err(|source| TraceDumpError::Start { directory, source })
    }

    /// Returns a test of events for those of the given names; by default findings, faults, and those of the daemon.
    fn wants(&self, names: &[String]) -> Result<Wants, TraceDumpError> {
        let default = || {
            [FINDING, FAULT]
                .into_iter()
                .chain(self.named.iter().map(|named| named.name))
        };
        let names: Vec<&str> = match names {
            [] => default().collect(),
            names => names.iter().map(String::as_str).collect(),
        };
        let index = |name: &str| self.events.iter().position(|event| event.name == name);
        let mut whole = vec![false; self.events.len()];
        let mut kinds = vec![false; self.kinds().count()];
        let mut named = Vec::new();
        for name in names {
            if let Some(kind) = name.strip_prefix(KIND)
                && let Some(row) = self.kinds().position(|info| info.name == kind)
            {
                kinds[row] = true;
            } else if let Some(found) = self.named.iter().find(|named| named.name == name) {
                named.push(*found);
            } else if let Some(at) = index(name) {
                whole[at] = true;
            } else if name != SIGNAL {
                return Err(self.unknown(name));
            }
        }
        let finding = index(FINDING);
        Ok(Box::new(move |event, object, arguments| {
            let at = usize::from(event);
            whole.get(at) == Some(&true)
                || Some(at) == finding && kinds.get(object as usize) == Some(&true)
                || named.iter().any(|named| named.event == event && (named.is)(arguments))
        }))
    }

    fn kinds(&self) -> impl Iterator<Item = &'static KindInfo> {
        self.findings.iter().copied().flatten()
    }

    fn unknown(&self, name: &str) -> TraceDumpError {
        let kinds = self.kinds().map(|kind| format!("{KIND}{}", kind.name));
        let named = self.named.iter().map(|named| named.name.to_owned());
        let events = self.events.iter().map(|event| event.name.to_owned());
        TraceDumpError::Unknown {
            name: name.to_owned(),
            known: named.chain(events).chain(kinds).collect(),
        }
    }
}
