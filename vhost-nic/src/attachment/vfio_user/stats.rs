//! Counters of an attachment.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What came in over a socket, from all its clients so far.
#[derive(Debug, Default)]
pub struct VfioUserStats {
    pub(super) connections: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) broken: AtomicU64,
}

/// [`VfioUserStats`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VfioUserSnapshot {
    /// Clients that connected.
    pub connections: u64,
    /// Messages received.
    pub messages: u64,
    /// Messages that could not be served, answered or not.
    pub errors: u64,
    /// Connections that ended in the middle, or after a message that cannot be.
    pub broken_connections: u64,
}

impl VfioUserStats {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> VfioUserSnapshot {
        VfioUserSnapshot {
            connections: self.connections.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            broken_connections: self.broken.load(Ordering::Relaxed),
        }
    }
}
