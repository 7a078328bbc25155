//! Counters of a server: traffic, and errors of the guest.

use std::sync::atomic::{AtomicU64, Ordering};

use log::{debug, warn};
use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters over all connections of a socket.
        #[derive(Debug, Default)]
        pub struct VhostUserPciStats {
            guest: String,
            $(pub(super) $name: Counter,)*
        }

        /// Snapshot of [`VhostUserPciStats`].
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
        pub struct VhostUserPciSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl VhostUserPciStats {
            /// Reads all counters.
            pub fn snapshot(&self) -> VhostUserPciSnapshot {
                VhostUserPciSnapshot { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Connections served.
    connections,
    /// Accesses to configuration space.
    config_accesses,
    /// Reads of a BAR.
    mmio_reads,
    /// Writes to a BAR.
    mmio_writes,
    /// Interrupts sent.
    interrupts,
    /// Attempts to send an interrupt that found no buffer.
    interrupts_deferred,
    /// Rings with impossible indices; the queue is stopped until the next connection.
    bad_rings,
    /// Descriptor chains that loop, end early, or point outside guest memory.
    bad_chains,
    /// Commands that are unknown, truncated, or of an invalid length.
    bad_commands,
    /// Buffers too small for the data to be written.
    short_buffers,
}

impl VhostUserPciStats {
    /// Zeroed counters. `guest` is the guest's name in the log.
    pub fn new(guest: impl Into<String>) -> Self {
        Self {
            guest: guest.into(),
            ..Self::default()
        }
    }

    /// Name of the guest in the log.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Counts an error of the guest, and warns about the first of its kind.
    pub(super) fn report(&self, error: &Counter, what: &str) {
        if error.add() == 0 {
            warn!("{}: {what} (further ones are counted)", self.guest);
        } else {
            debug!("{}: {what}", self.guest);
        }
    }
}

/// A monotonic counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one, and returns the previous value.
    pub(super) fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
