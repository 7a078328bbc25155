//! Free-running clock: the timestamps of completions, and the time that timers count from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tape::Tape;

/// Counts nanoseconds (`device_frequency_khz`); `internal_timer` of the initialization segment.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    tape: Option<Arc<dyn Tape>>,
}

impl Clock {
    /// Starts a clock at zero. With a tape, the time is that of the tape.
    pub fn start(tape: Option<Arc<dyn Tape>>) -> Self {
        Self {
            start: Instant::now(),
            tape,
        }
    }

    /// Time in nanoseconds.
    #[inline]
    pub fn now(&self) -> u64 {
        let time = self.start.elapsed().as_nanos() as u64;
        match &self.tape {
            None => time,
            Some(tape) => tape.time(time),
        }
    }

    /// The same time for timers.
    #[inline]
    pub fn instant(&self) -> Instant {
        match self.tape {
            None => Instant::now(),
            Some(_) => self.start + Duration::from_nanos(self.now()),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::start(None)
    }
}
