//! Result of a replay.

use std::fmt;

use crate::record::Event;

/// The first difference between a record and the NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Position of the event in the record, from 0.
    pub event: u64,
    /// Number of the entry that it belongs to, from 0.
    pub entry: u64,
    /// The event in the record.
    pub recorded: Event,
    /// The NIC's doing in its place, as text.
    pub replayed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, entry, .. } = self;
        writeln!(f, "first difference at event {event}, in entry {entry}:")?;
        writeln!(f, "  record: {}", self.recorded)?;
        write!(f, "  replay: {}", self.replayed)
    }
}

/// A finding in a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Position of the event in the record, from 0.
    pub event: u64,
    /// Number of the entry that it belongs to, from 0.
    pub entry: u64,
    /// Name of the kind.
    pub kind: &'static str,
    /// Kind of the object.
    pub object: &'static str,
    /// Number of the object.
    pub number: u64,
    /// Text for people.
    pub text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, kind, text, .. } = self;
        write!(f, "finding {kind} in entry {entry}: {text}")
    }
}

/// Result of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries from outside that were made; those in answer to a frame of the NIC are not counted.
    pub entries: u64,
    /// Register accesses.
    pub accesses: u64,
    /// Commands that the NIC executed.
    pub commands: u64,
    /// Reads of guest memory.
    pub memory_reads: u64,
    /// Writes to guest memory, atomic updates included.
    pub memory_writes: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Frames that the NIC received.
    pub frames_in: u64,
    /// Frames that the NIC sent.
    pub frames_out: u64,
    /// Findings, at most [`Report::FINDINGS`].
    pub findings: Vec<Found>,
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
    /// The last events, each with its position.
    pub last: Vec<(u64, Event)>,
}

impl Report {
    /// Maximum number of findings that are kept, the first ones.
    pub const FINDINGS: usize = 4096;
    /// Maximum number of events in [`Report::last`].
    pub const LAST: usize = 12;
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} entries ({} register accesses, {} commands), {} memory reads, {} frames in",
            self.entries, self.accesses, self.commands, self.memory_reads, self.frames_in
        )?;
        writeln!(
            f,
            "{} memory writes, {} interrupts, {} frames out",
            self.memory_writes, self.interrupts, self.frames_out
        )?;
        for found in &self.findings {
            writeln!(f, "{found}")?;
        }
        match &self.difference {
            None => f.write_str("all outputs are equal"),
            Some(difference) => difference.fmt(f),
        }
    }
}
