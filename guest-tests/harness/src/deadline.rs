//! A point in time by which something has to happen.

use std::time::{Duration, Instant};

use crate::error::Error;

/// A time-out under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    begin: Instant,
    after: Duration,
}

impl Deadline {
    /// The deadline `after` from now.
    pub(crate) fn after(after: Duration) -> Self {
        Self {
            begin: Instant::now(),
            after,
        }
    }

    /// How much time is left; `None` if it has run out.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.after
            .checked_sub(self.begin.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// The error to return when it has passed while waiting for `what`.
    pub(crate) fn missed(&self, what: impl Into<String>) -> Error {
        Error::Timeout {
            what: what.into(),
            after: self.after,
        }
    }
}
