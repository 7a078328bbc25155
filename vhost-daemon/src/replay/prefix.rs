//! Prefixes of a record that still show a finding.

use std::io::{Read, Write};

use flate2::Compression;

use super::report::{Found, Report};
use crate::record::{Format, Reader, RecordError, RecordEvent, Writer};

/// The shortest prefix of a record that shows a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix<E, C> {
    /// Number of its entries from outside.
    pub entries: u64,
    /// Replay of the prefix.
    pub report: Report<E, C>,
}

/// Finds the shortest prefix of a record that shows a finding; `None` if all of it shows none. `run` replays the
/// record, or its first entries from outside.
///
/// A replay repeats itself, and a longer prefix shows what a shorter one does: bisection finds the shortest.
pub fn shortest_prefix<E, C>(
    run: impl Fn(Option<u64>) -> Result<Report<E, C>, RecordError>,
    shows: impl Fn(&Found) -> bool,
) -> Result<Option<Prefix<E, C>>, RecordError> {
    let is_shown = |report: &Report<E, C>| report.findings.iter().any(&shows);
    let whole = run(None)?;
    if !is_shown(&whole) {
        return Ok(None);
    }
    // The entry of a difference is not counted, but it is made.
    let entries = whole.entries + u64::from(whole.difference.is_some());
    let (mut without, mut with) = (0, Prefix { entries, report: whole });
    while with.entries - without > 1 {
        let entries = without + (with.entries - without) / 2;
        let report = run(Some(entries))?;
        if is_shown(&report) {
            with = Prefix { entries, report };
        } else {
            without = entries;
        }
    }
    Ok(Some(with))
}

/// Copies the first `limit` entries from outside to a record of their own.
pub fn copy_prefix<F: Format>(input: impl Read, output: impl Write, limit: u64) -> Result<(), RecordError> {
    let mut reader = Reader::<F, _>::new(input)?;
    let mut writer = Writer::<F, _>::new(output, reader.setup(), Compression::best()).map_err(RecordError::Io)?;
    while reader.entries() < limit {
        let event = reader.next_event()?;
        if event == F::Event::END {
            break;
        }
        writer.write(&event).map_err(RecordError::Io)?;
    }
    writer.finish().map_err(RecordError::Io)?;
    Ok(())
}
