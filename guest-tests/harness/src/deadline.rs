//! Deadlines.

use std::time::{Duration, Instant};

use crate::error::Error;

/// A running timeout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    begin: Instant,
    after: Duration,
}

impl Deadline {
    /// Creates the deadline `after` from now.
    pub(crate) fn after(after: Duration) -> Self {
        Self {
            begin: Instant::now(),
            after,
        }
    }

    /// Returns the remaining time; `None` once the deadline has passed.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.after
            .checked_sub(self.begin.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Creates the error for a deadline missed while waiting for `what`.
    pub(crate) fn missed(&self, what: impl Into<String>) -> Error {
        Error::Timeout {
            what: what.into(),
            after: self.after,
        }
    }
}
