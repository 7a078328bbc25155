//! The turns of the NICs of a daemon.

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

/// Order of the entries into all NICs of a daemon. The lock is reentrant: frames enter other NICs, and answers to them
/// the first one again, in the sender's turn. It is before every other lock of the NICs.
#[derive(Debug, Default)]
pub struct Turns(ReentrantMutex<()>);

impl Turns {
    /// Waits for a turn, which lasts until the guard is dropped.
    pub(super) fn take(&self) -> ReentrantMutexGuard<'_, ()> {
        self.0.lock()
    }

    /// Whether it is the calling thread's turn.
    pub(super) fn is_own(&self) -> bool {
        self.0.is_owned_by_current_thread()
    }
}
