//! What passed between a guest and its function, and what the guest got wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use log::{debug, warn};
use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one attachment, over all its connections.
        #[derive(Debug, Default)]
        pub struct VhostUserPciStats {
            guest: String,
            $(pub(super) $name: Counter,)*
        }

        /// A [`VhostUserPciStats`] at one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
        pub struct VhostUserPciSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl VhostUserPciStats {
            /// The counters now.
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
    /// Interrupts that had to wait for a buffer.
    interrupts_deferred,
    /// Rings with impossible indices; the queue rests until the next connection.
    bad_rings,
    /// Descriptor chains that loop, break off, or point outside the guest's memory.
    bad_chains,
    /// Commands that are unknown, cut short, or of an impossible length.
    bad_commands,
    /// Buffers too small for what was to be written into them.
    short_buffers,
}

impl VhostUserPciStats {
    /// Zero counters, for a guest with this name in the log.
    pub fn new(guest: impl Into<String>) -> Self {
        Self {
            guest: guest.into(),
            ..Self::default()
        }
    }

    /// The guest's name in the log.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Counts a mistake of the guest; the first of its kind is worth a warning.
    pub(super) fn find(&self, mistake: &Counter, what: &str) {
        if mistake.add() == 0 {
            warn!("{}: {what} (further ones are counted)", self.guest);
        } else {
            debug!("{}: {what}", self.guest);
        }
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one, and returns the value before.
    pub(super) fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
