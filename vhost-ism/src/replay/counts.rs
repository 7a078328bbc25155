//! Counts of a replay.

use std::fmt;

/// Inputs and outputs of a fabric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Control requests.
    pub requests: u64,
    /// Kicks of all queues.
    pub kicks: u64,
    /// Doorbells that were rung.
    pub doorbells: u64,
    /// Answers to requests.
    pub answers: u64,
    /// Maps and unmaps.
    pub maps: u64,
    /// Events.
    pub events: u64,
    /// Interrupts.
    pub interrupts: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "({} kicks), {} requests, {} doorbells",
            self.kicks, self.requests, self.doorbells
        )?;
        write!(
            f,
            "{} answers, {} maps and unmaps, {} events, {} interrupts",
            self.answers, self.maps, self.events, self.interrupts
        )
    }
}
