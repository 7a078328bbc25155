//! Counters of accesses that no driver makes.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters of a function.
#[derive(Debug, Default)]
pub(super) struct FunctionStats {
    pub(super) outside: AtomicU64,
    pub(super) disabled: AtomicU64,
    pub(super) resets: AtomicU64,
}

/// Snapshot of a function's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FunctionSnapshot {
    /// Accesses beyond the end of configuration space or a BAR, or to a BAR that does not exist.
    pub accesses_outside: u64,
    /// Accesses to BAR 0 while Memory Space Enable was off or the function was not in D0.
    pub accesses_while_disabled: u64,
    /// Resets of the function, of every kind.
    pub resets: u64,
}

impl FunctionStats {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> FunctionSnapshot {
        FunctionSnapshot {
            accesses_outside: self.outside.load(Ordering::Relaxed),
            accesses_while_disabled: self.disabled.load(Ordering::Relaxed),
            resets: self.resets.load(Ordering::Relaxed),
        }
    }
}
