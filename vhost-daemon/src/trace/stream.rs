//! A trace on a connection: JSON lines, with the records of each batch in binary behind the line that announces them.

use std::io::{self, BufRead, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

use super::event::{ARGUMENTS, EventInfo, Record};
use super::recorder::{self, Batch, Session};
use crate::program::Program;

/// Version of the stream's format.
const SCHEMA_VERSION: u32 = 1;
/// Interval at which the rings are read. A thread fills a ring in a few milliseconds at most if it does nothing else.
const INTERVAL: Duration = Duration::from_millis(5);
/// Longest line in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Maximum number of records behind a line.
const MAX_RECORDS: usize = 1 << 26;

/// First line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub schema_version: u32,
    /// Name of the daemon.
    pub daemon: String,
    /// Version of the daemon.
    pub version: String,
    /// Wall-clock time that the times of the events count from, in nanoseconds since 1970.
    pub epoch_unix_ns: u64,
    /// Names of the guests, by number.
    pub guests: Vec<String>,
    /// Declarations of the events, by index.
    pub events: Vec<Declaration>,
}

/// Declaration of an event, as received: see [`EventInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Name of the event.
    pub name: String,
    /// Kind of object that it belongs to.
    pub object: String,
    /// Names of its arguments.
    pub arguments: Vec<String>,
}

impl From<&EventInfo> for Declaration {
    fn from(info: &EventInfo) -> Self {
        Self {
            name: info.name.to_owned(),
            object: info.object.to_owned(),
            arguments: info.arguments.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Header {
    /// Creates the header of a daemon's traces.
    pub fn new(program: Program, guests: &[String], events: &[EventInfo]) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            daemon: program.name.to_owned(),
            version: program.version.to_owned(),
            epoch_unix_ns: recorder::epoch_unix_ns(),
            guests: guests.to_vec(),
            events: events.iter().map(Into::into).collect(),
        }
    }
}

/// Every other line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Batch {
        thread: u64,
        name: String,
        records: usize,
        lost: u64,
    },
    End {
        end: bool,
    },
}

/// Streams the events of a session to a client for `duration`, behind the line with the [`Header`].
pub fn write(out: &mut impl Write, mut session: Session, duration: Duration) -> io::Result<()> {
    let end = Instant::now() + duration;
    loop {
        let now = Instant::now();
        for batch in session.drain() {
            let line = Line::Batch {
                thread: batch.thread,
                name: batch.name,
                records: batch.records.len(),
                lost: batch.lost,
            };
            write_line(out, &line)?;
            out.write_all(batch.records.as_bytes())?;
        }
        out.flush()?;
        if now >= end {
            break;
        }
        thread::sleep(INTERVAL.min(end - now));
    }
    write_line(out, &Line::End { end: true })?;
    out.flush()
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// A trace that cannot be read.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection failed.
    #[error("the connection to the daemon failed")]
    Io(#[from] io::Error),
    /// The connection ended before the trace did.
    #[error("the daemon ended the trace early")]
    Truncated,
    /// A line is not of the format.
    #[error("the daemon sent an invalid line")]
    Line(#[from] serde_json::Error),
    /// The daemon is of another version than the reader.
    #[error("the trace of {daemon} {version} has another format or other events than this program's")]
    Version {
        /// Name of the daemon.
        daemon: String,
        /// Version of the daemon.
        version: String,
    },
}

/// An event of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since [`Header::epoch_unix_ns`].
    pub time: u64,
    /// Index of its declaration.
    pub event: u16,
    /// Number of the guest.
    pub guest: u16,
    /// Number of the object.
    pub object: u32,
    /// Arguments.
    pub arguments: [u32; ARGUMENTS],
    /// Index in [`Trace::threads`].
    pub thread: u32,
}

/// A trace.
#[derive(Debug)]
pub struct Trace {
    /// Source of the trace.
    pub header: Header,
    /// Names of the threads.
    pub threads: Vec<String>,
    /// Events in the order of their times.
    pub events: Vec<Event>,
    /// Events that were overwritten before they could be read.
    pub lost: u64,
}

impl Trace {
    /// Reads the trace behind a header to its end; its events must be `events`. Calls `progress` with the number of
    /// events from time to time.
    pub fn read(
        input: &mut impl BufRead,
        header: Header,
        events: &[EventInfo],
        mut progress: impl FnMut(usize),
    ) -> Result<Self, StreamError> {
        let expected: Vec<Declaration> = events.iter().map(Into::into).collect();
        if header.schema_version != SCHEMA_VERSION || header.events != expected {
            return Err(StreamError::Version {
                daemon: header.daemon,
                version: header.version,
            });
        }
        let mut trace = Self::new(header);
        let mut numbers = Vec::new();
        while let Line::Batch {
            thread,
            name,
            records,
            lost,
        } = serde_json::from_str(&read_line(input)?)?
        {
            let at = trace.thread(&mut numbers, thread, name);
            trace.lost += lost;
            for _ in 0..records.min(MAX_RECORDS) {
                let mut record = [0; size_of::<Record>()];
                input.read_exact(&mut record)?;
                trace
                    .events
                    .extend(Record::read_from_bytes(&record).ok().map(|record| event(&record, at)));
            }
            progress(trace.events.len());
        }
        Ok(trace.in_order())
    }

    /// Makes a trace of what a session of this process has read.
    pub(super) fn of_batches(header: Header, batches: Vec<Batch>) -> Self {
        let mut trace = Self::new(header);
        let mut numbers = Vec::new();
        for batch in batches {
            let at = trace.thread(&mut numbers, batch.thread, batch.name);
            trace.lost += batch.lost;
            trace
                .events
                .extend(batch.records.iter().map(|record| event(record, at)));
        }
        trace.in_order()
    }

    fn new(header: Header) -> Self {
        Self {
            header,
            threads: Vec::new(),
            events: Vec::new(),
            lost: 0,
        }
    }

    /// Returns the index of the thread of a number; `numbers` are those of the threads so far.
    fn thread(&mut self, numbers: &mut Vec<u64>, thread: u64, name: String) -> u32 {
        let known = numbers.iter().position(|number| *number == thread);
        let at = known.unwrap_or_else(|| {
            numbers.push(thread);
            self.threads.push(name);
            numbers.len() - 1
        });
        at as u32
    }

    fn in_order(mut self) -> Self {
        // Stable: the events of a thread stay in order.
        self.events.sort_by_key(|event| event.time);
        self
    }
}

fn event(record: &Record, thread: u32) -> Event {
    Event {
        time: record.time.get(),
        event: record.event.get(),
        guest: record.guest.get(),
        object: record.object.get(),
        arguments: record.arguments.map(Into::into),
        thread,
    }
}

fn read_line(input: &mut impl BufRead) -> Result<String, StreamError> {
    let mut line = String::new();
    input.take(MAX_LINE).read_line(&mut line)?;
    match line.ends_with('\n') {
        true => Ok(line),
        false => Err(StreamError::Truncated),
    }
}
