//! The `replay` command of the daemons' programs.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use log::LevelFilter;
use thiserror::Error;

use crate::finding::Kind;
use crate::output::{Output, OutputError};
use crate::program::Program;
use crate::record::{Format, Reader, RecordError};
use crate::replay::{Report, copy_prefix, shortest_prefix};
use crate::trace::{EventInfo, Header, Session, StreamError, Trace, start_flight_recorder, write_stream};

/// Options of the `replay` command, of a device with these findings.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs<K: Kind> {
    /// The record.
    pub file: PathBuf,

    /// Replay only the first N entries into the device.
    #[arg(long, value_name = "N", conflicts_with = "find")]
    pub until: Option<u64>,

    /// Find the shortest prefix of the record that shows a finding of this kind (docs/findings.md), and print its last
    /// events.
    #[arg(long, value_name = "finding=KIND", value_parser = finding::<K>)]
    pub find: Option<String>,

    /// Write the execution trace of the replay to this file, for Perfetto (docs/trace.md); its times are those of the
    /// replay.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Write the part that was replayed to this file, as a record of its own.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    #[arg(skip)]
    kinds: PhantomData<fn(K)>,
}

/// Parses the name of a kind of findings.
fn finding<K: Kind>(text: &str) -> Result<String, String> {
    let kind = text.strip_prefix("finding=").ok_or("expected finding=KIND")?;
    let known = K::INFOS.iter().any(|info| info.name == kind);
    known
        .then(|| kind.to_owned())
        .ok_or_else(|| format!("{kind:?} is no kind of findings"))
}

/// A replay that failed, or differs from its record.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The record cannot be opened.
    #[error("cannot open {}", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// The record cannot be replayed as asked.
    #[error("cannot replay {}", .0.display())]
    Replay(PathBuf, #[source] ReplayFailure),
    /// The replayed part cannot be written.
    #[error("cannot write the record to {}", .0.display())]
    Output(PathBuf, #[source] OutputError),
    /// The trace cannot be written.
    #[error("cannot write the trace to {}", .0.display())]
    Trace(PathBuf, #[source] StreamError),
}

/// Reason why a record cannot be replayed as asked.
#[derive(Debug, Error)]
pub enum ReplayFailure {
    /// It cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It shows no finding of the kind.
    #[error("it shows no {0}")]
    NoFinding(String),
    /// An output differs.
    #[error("the replay differs from the record")]
    Difference,
}

/// A device that can be replayed.
pub trait Replayed {
    /// Format of its records.
    type Format: Format;
    /// Counts of its inputs and outputs.
    type Counts: fmt::Display;

    /// Replays a record, or its first `limit` entries.
    fn replay(
        &self,
        record: File,
        limit: Option<u64>,
    ) -> Result<Report<<Self::Format as Format>::Event, Self::Counts>, RecordError>;

    /// Returns a line about a record, and the names of the guests in its traces.
    fn describe(&self, setup: &<Self::Format as Format>::Setup) -> (String, Vec<String>);

    /// Kinds of events in its traces.
    fn events(&self) -> &'static [EventInfo];

    /// Writes a trace for Perfetto.
    fn write_trace(&self, trace: &Trace, out: &mut dyn Write) -> io::Result<()>;
}

impl<K: Kind> ReplayArgs<K> {
    /// Replays a record and prints the result. Fails if it differs, or does not show the finding.
    pub fn run<R: Replayed>(&self, program: Program, device: &R) -> Result<(), ReplayError> {
        // Findings are printed, once, with their place.
        log::set_max_level(LevelFilter::Off);
        let reader = Reader::<R::Format, _>::new(self.open()?).map_err(|error| self.failed(error))?;
        let (title, guests) = device.describe(reader.setup());
        println!("{title}");
        let limit = match &self.find {
            None => self.until,
            Some(kind) => Some(self.find(kind, device)?),
        };
        if self.trace.is_some() {
            start_flight_recorder();
        }
        let report = device.replay(self.open()?, limit).map_err(|error| self.failed(error))?;
        if self.find.is_some() {
            for (position, event) in &report.last {
                println!("  event {position}: {event}");
            }
        }
        println!("{report}");
        if let Some(path) = &self.trace {
            let header = Header::new(program, &guests, device.events());
            write_trace(path, header, device).map_err(|error| ReplayError::Trace(path.clone(), error))?;
        }
        if let Some(path) = &self.output {
            let output = Output::open(path).map_err(|error| ReplayError::Output(path.clone(), error))?;
            let output = BufWriter::new(output.file);
            copy_prefix::<R::Format>(self.open()?, output, report.entries).map_err(|error| self.failed(error))?;
        }
        match report.difference {
            Some(_) => Err(self.failed(ReplayFailure::Difference)),
            None => Ok(()),
        }
    }

    fn open(&self) -> Result<File, ReplayError> {
        File::open(&self.file).map_err(|error| ReplayError::Open(self.file.clone(), error))
    }

    fn failed(&self, cause: impl Into<ReplayFailure>) -> ReplayError {
        ReplayError::Replay(self.file.clone(), cause.into())
    }

    /// Returns the length of the shortest prefix that shows a finding of this kind.
    fn find<R: Replayed>(&self, kind: &str, device: &R) -> Result<u64, ReplayError> {
        let run = |limit| {
            let record = File::open(&self.file).map_err(RecordError::Io)?;
            device.replay(record, limit)
        };
        let prefix = shortest_prefix(run, |found| found.kind == kind).map_err(|error| self.failed(error))?;
        let prefix = prefix.ok_or_else(|| self.failed(ReplayFailure::NoFinding(kind.to_owned())))?;
        println!("shortest prefix that shows {kind}: {} entries", prefix.entries);
        Ok(prefix.entries)
    }
}

/// Writes what the device recorded in the replay.
fn write_trace<R: Replayed>(path: &Path, header: Header, device: &R) -> Result<(), StreamError> {
    let mut stream = Vec::new();
    write_stream(&mut stream, Session::start(true), Duration::ZERO)?;
    let trace = Trace::read(&mut stream.as_slice(), header, device.events(), |_| {})?;
    let mut out = BufWriter::new(File::create(path)?);
    device.write_trace(&trace, &mut out)?;
    out.flush()?;
    println!("{} events in the trace, {} lost", trace.events.len(), trace.lost);
    Ok(())
}
