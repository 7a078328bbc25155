//! Polling with a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time limit of every wait; generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Time to wait for something that must not happen.
pub const BRIEF: Duration = Duration::from_millis(50);

/// Whether waits are in vain.
static HOPELESS: AtomicBool = AtomicBool::new(false);

/// Sets whether waits of this process fail at once, as all devices are gone.
pub fn set_hopeless(hopeless: bool) {
    HOPELESS.store(hopeless, Ordering::Relaxed);
}

/// Polls until `look` returns a value; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        let patient = Instant::now() < end && !HOPELESS.load(Ordering::Relaxed);
        assert!(patient, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Polls until a condition holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}
