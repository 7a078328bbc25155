//! The free-running clock, which completions have their time from.

use std::time::Instant;

/// Counts nanoseconds (`device_frequency_khz`). The `internal_timer` of the initialization segment shows it.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}
