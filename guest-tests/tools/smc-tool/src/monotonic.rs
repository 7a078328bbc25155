//! Timestamps comparable between the programs of one guest.

use rustix::time::{ClockId, clock_gettime};

/// Returns CLOCK_MONOTONIC in seconds.
pub fn seconds() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
