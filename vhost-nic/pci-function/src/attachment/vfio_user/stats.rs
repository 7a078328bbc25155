//! Counters of a server.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters over all clients of a socket.
#[derive(Debug, Default)]
pub struct VfioUserStats {
    pub(super) connections: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) broken: AtomicU64,
}

/// Snapshot of [`VfioUserStats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VfioUserSnapshot {
    /// Clients that connected.
    pub connections: u64,
    /// Messages received.
    pub messages: u64,
    /// Messages that failed, with or without a reply.
    pub errors: u64,
    /// Connections that ended within a message, or after an invalid one.
    pub broken_connections: u64,
}

impl VfioUserStats {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads all counters.
    pub fn snapshot(&self) -> VfioUserSnapshot {
        VfioUserSnapshot {
            connections: self.connections.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            broken_connections: self.broken.load(Ordering::Relaxed),
        }
    }
}
