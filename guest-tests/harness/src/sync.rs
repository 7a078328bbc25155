//! Locks that stay usable after a panic of a test, so that cleanup still works.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::deadline::Deadline;

/// Locks `mutex`, poisoned or not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `look` returns a value; `None` at the deadline.
pub(crate) fn wait_for<T, R>(
    mutex: &Mutex<T>,
    changed: &Condvar,
    deadline: Deadline,
    mut look: impl FnMut(&mut T) -> Option<R>,
) -> Option<R> {
    let mut guard = lock(mutex);
    loop {
        if let Some(found) = look(&mut guard) {
            return Some(found);
        }
        let left = deadline.left()?;
        guard = changed
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}
