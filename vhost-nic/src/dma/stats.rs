//! Accesses to guest memory, counted by purpose.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! purposes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why the device accesses guest memory.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Purpose {
            $($(#[$doc])* $name,)*
        }

        impl Purpose {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is called in statistics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

purposes! {
    /// A command's entry or input mailbox.
    CommandFetch = "command_fetch",
    /// A command's output or status.
    CommandReply = "command_reply",
    /// A doorbell record.
    DoorbellRecord = "doorbell_record",
    /// A send WQE.
    SendWqe = "send_wqe",
    /// A receive WQE.
    ReceiveWqe = "receive_wqe",
    /// Data to be sent.
    Gather = "gather",
    /// Data received.
    Scatter = "scatter",
    /// A completion.
    Cqe = "cqe",
    /// An event.
    Eqe = "eqe",
    /// The target or the result of an atomic operation.
    Atomic = "atomic",
    /// A list of translations.
    Translation = "translation",
}

/// Accesses for one purpose.
#[derive(Debug, Default)]
struct Counters {
    accesses: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// Counters of accesses, by purpose.
#[derive(Debug, Default)]
pub struct DmaStats([Counters; Purpose::ALL.len()]);

/// Accesses for one purpose, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PurposeStats {
    /// What the accesses were for.
    pub purpose: &'static str,
    /// Accesses that succeeded.
    pub accesses: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// Accesses to memory that is not there, or not for that.
    pub failures: u64,
}

/// Accesses for one purpose that are added to the counters all at once, when this is dropped.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    counters: &'a Counters,
    accesses: u64,
    bytes: u64,
    failures: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(stats: &'a DmaStats, purpose: Purpose) -> Self {
        Self {
            counters: &stats.0[purpose as usize],
            accesses: 0,
            bytes: 0,
            failures: 0,
        }
    }

    pub(super) fn count(&mut self, length: usize, succeeded: bool) {
        if succeeded {
            self.accesses += 1;
            self.bytes += length as u64;
        } else {
            self.failures += 1;
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let Counters {
            accesses,
            bytes,
            failures,
        } = self.counters;
        accesses.fetch_add(self.accesses, Ordering::Relaxed);
        bytes.fetch_add(self.bytes, Ordering::Relaxed);
        if self.failures > 0 {
            failures.fetch_add(self.failures, Ordering::Relaxed);
        }
    }
}

impl DmaStats {
    pub(super) fn count(&self, purpose: Purpose, length: usize, succeeded: bool) {
        let counters = &self.0[purpose as usize];
        if succeeded {
            counters.accesses.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(length as u64, Ordering::Relaxed);
        } else {
            counters.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters of one purpose.
    pub fn of(&self, purpose: Purpose) -> PurposeStats {
        let counters = &self.0[purpose as usize];
        PurposeStats {
            purpose: purpose.name(),
            accesses: counters.accesses.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
        }
    }

    /// The counters of all purposes.
    pub fn snapshot(&self) -> Vec<PurposeStats> {
        Purpose::ALL.iter().map(|&purpose| self.of(purpose)).collect()
    }
}
