//! Result of a replay.

use std::fmt;

/// The first difference between a record and the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<E> {
    /// Position of the event in the record, from 0.
    pub event: u64,
    /// Number of the entry that it belongs to, from 0.
    pub entry: u64,
    /// The event in the record.
    pub recorded: E,
    /// The device's doing in its place, as text.
    pub replayed: String,
}

impl<E: fmt::Display> fmt::Display for Difference<E> {
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

/// Result of a replay, with the counts of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<E, C> {
    /// Entries from outside that were made; those in answer to an output of the device are not counted.
    pub entries: u64,
    /// Counts of inputs and outputs. Their text follows the number of entries.
    pub counts: C,
    /// Findings, at most [`Report::FINDINGS`].
    pub findings: Vec<Found>,
    /// The first difference, if there is one.
    pub difference: Option<Difference<E>>,
    /// The last events, each with its position.
    pub last: Vec<(u64, E)>,
}

impl<E, C: Default> Default for Report<E, C> {
    fn default() -> Self {
        Self {
            entries: 0,
            counts: C::default(),
            findings: Vec::new(),
            difference: None,
            last: Vec::new(),
        }
    }
}

impl<E, C> Report<E, C> {
    /// Maximum number of findings that are kept, the first ones.
    pub const FINDINGS: usize = 4096;
    /// Maximum number of events in [`Report::last`].
    pub const LAST: usize = 12;
}

impl<E: fmt::Display, C: fmt::Display> fmt::Display for Report<E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} entries {}", self.entries, self.counts)?;
        for found in &self.findings {
            writeln!(f, "{found}")?;
        }
        match &self.difference {
            None => f.write_str("all outputs are equal"),
            Some(difference) => difference.fmt(f),
        }
    }
}
