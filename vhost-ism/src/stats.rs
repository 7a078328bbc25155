//! What a guest did and what it got wrong, as counters anyone can read while the daemon runs.

use std::sync::atomic::{AtomicU64, Ordering};

use log::{debug, warn};
use serde::Serialize;

/// A mistake of a guest: answered as the device's specification says, counted, never fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A control request was answered with ERR: unknown, of the wrong length, or out of limits.
    BadRequest,
    /// A control request had no writable byte, or its descriptors point outside guest memory.
    BadChain,
    /// A ring's indices make no sense; the queue is not served until the device is reset.
    BadRing,
    /// A doorbell byte that belongs to no attached DMB.
    StrayDoorbell,
    /// An event buffer too small for the event.
    ShortEventBuffer,
    /// Something for this guest was dropped because it does not take its events.
    EventOverflow,
    /// Guest memory that its VMM could take away, and that is therefore not used.
    UnsealedMemory,
}

const FINDINGS: [(Finding, &str); 7] = [
    (Finding::BadRequest, "malformed control request"),
    (Finding::BadChain, "control request without a place for the answer"),
    (Finding::BadRing, "ring with impossible indices"),
    (Finding::StrayDoorbell, "doorbell for a DMB that is not attached"),
    (Finding::ShortEventBuffer, "event buffer too small"),
    (Finding::EventOverflow, "events dropped, the guest does not take them"),
    (
        Finding::UnsealedMemory,
        "memory is not used that is not sealed against shrinking (memory-backend-memfd is; or --trust-unsealed-memory)",
    ),
];

macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// Counters of one guest, over all its sessions.
        #[derive(Debug, Default)]
        pub struct GuestStats {
            guest: String,
            $($(#[$meta])* pub $name: Counter,)*
            findings: [Counter; FINDINGS.len()],
        }

        /// A [`GuestStats`] at one moment.
        #[derive(Clone, Debug, Default, Serialize)]
        pub struct GuestSnapshot {
            /// Which guest.
            pub guest: String,
            $($(#[$meta])* pub $name: u64,)*
            /// Guest mistakes by kind.
            pub findings: std::collections::BTreeMap<String, u64>,
        }

        impl GuestStats {
            /// The counters now.
            pub fn snapshot(&self) -> GuestSnapshot {
                GuestSnapshot {
                    guest: self.guest.clone(),
                    $($name: self.$name.get(),)*
                    findings: FINDINGS
                        .iter()
                        .map(|(finding, _)| (format!("{finding:?}"), self.findings[*finding as usize].get()))
                        .collect(),
                }
            }
        }
    };
}

counters! {
    /// Driver sessions begun.
    sessions,
    /// Control requests answered.
    requests,
    /// Control requests answered with a status other than OK.
    refusals,
    /// DMBs allocated.
    allocs,
    /// DMBs attached.
    attaches,
    /// DMBs let go of.
    detaches,
    /// Slabs and doorbell areas mapped into the guest.
    maps,
    /// Slabs unmapped from the guest.
    unmaps,
    /// Kicks of the doorbell queue.
    kicks,
    /// Doorbell bytes found and passed on.
    doorbells,
    /// Doorbells this guest's own DMBs received.
    rings,
    /// Events put on the event queue.
    events,
    /// Interrupts raised for them.
    interrupts,
    /// Messages sent to peers.
    messages,
}

impl GuestStats {
    /// Zero counters of a guest.
    pub fn new(guest: String) -> Self {
        Self {
            guest,
            ..Self::default()
        }
    }

    /// The guest's name in logs.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Counts a mistake; the first of its kind is worth a warning.
    pub fn find(&self, finding: Finding) {
        let text = FINDINGS[finding as usize].1;
        if self.findings[finding as usize].add(1) == 0 {
            warn!("{}: {text} (further ones are counted)", self.guest);
        } else {
            debug!("{}: {text}", self.guest);
        }
    }

    /// How often a mistake was made.
    pub fn found(&self, finding: Finding) -> u64 {
        self.findings[finding as usize].get()
    }
}

/// A monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, and returns the value before.
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_by_kind() {
        for (index, (finding, _)) in FINDINGS.iter().enumerate() {
            assert_eq!(*finding as usize, index);
        }
        let stats = GuestStats::new("a".into());
        stats.find(Finding::BadRing);
        stats.find(Finding::BadRing);
        let snapshot = stats.snapshot();
        assert_eq!(snapshot.findings["BadRing"], 2);
        assert_eq!(snapshot.findings["BadRequest"], 0);
    }
}
