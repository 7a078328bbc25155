//! Free-running clock: the timestamps of completions.

use std::time::Instant;

/// Counts nanoseconds (`device_frequency_khz`); `internal_timer` of the initialization segment.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}
