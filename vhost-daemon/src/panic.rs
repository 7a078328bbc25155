//! Isolation of panics: a fault in one guest's device must not take down those of other guests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use log::error;

/// Runs `f` and returns its result, or `None` after logging that `what` panicked. State that `f` shares must be reset
/// by the caller afterwards.
pub fn isolate<T>(what: impl std::fmt::Display, f: impl FnOnce() -> T) -> Option<T> {
    // The message itself has been printed by the panic hook.
    catch_unwind(AssertUnwindSafe(f))
        .inspect_err(|_| error!("{what} panicked"))
        .ok()
}
