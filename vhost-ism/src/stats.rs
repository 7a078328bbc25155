//! Counters of a guest's activity and errors, readable while the daemon runs.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use vhost_daemon::guest_error::{GuestErrors, Kind};
use vhost_daemon::trace::Tracer;

use crate::door::Door;

vhost_daemon::counters! {
    /// Counters of one guest, over all its sessions.
    pub struct GuestCounters -> GuestSnapshot {
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
        /// DMBs detached, by owner or attacher.
        detaches,
        /// Slabs and doorbell areas mapped into the guest.
        maps,
        /// Slabs unmapped from the guest.
        unmaps,
        /// Kicks of the doorbell queue.
        kicks,
        /// Doorbell bytes collected and forwarded to the DMB's owner.
        doorbells,
        /// Doorbells received for DMBs that this guest owns.
        rings,
        /// Events put on the event queue.
        events,
        /// Interrupts raised for events.
        interrupts,
        /// Messages sent to peers.
        messages,
    }
}

vhost_daemon::guest_errors! {
    /// An error of a guest: answered as the device's specification says, counted, never fatal.
    pub enum GuestError {
        /// A control request answered with ERR: unknown, of the wrong length, or out of limits.
        BadRequest = "bad_request",
        /// A control request without a writable byte, or with descriptors that point outside guest memory.
        BadChain = "bad_chain",
        /// A ring with impossible indices; the queue is not served until the device is reset.
        BadRing = "bad_ring",
        /// A doorbell byte that belongs to no attached DMB.
        StrayDoorbell = "stray_doorbell",
        /// An event buffer too small for its event.
        ShortEventBuffer = "short_event_buffer",
        /// An event dropped because the guest does not take its events.
        EventOverflow = "event_overflow",
        /// Guest memory that its VMM could truncate, and that is therefore not used.
        UnsealedMemory = "unsealed_memory",
    }
}

impl GuestError {
    fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "malformed control request",
            Self::BadChain => "control request without room for the answer",
            Self::BadRing => "ring with impossible indices",
            Self::StrayDoorbell => "doorbell for a DMB that is not attached",
            Self::ShortEventBuffer => "event buffer too small",
            Self::EventOverflow => "event dropped, the guest does not take its events",
            Self::UnsealedMemory => {
                "memory not sealed against shrinking is not used (use memory-backend-memfd, or --trust-unsealed-memory)"
            }
        }
    }
}

/// Statistics of one guest.
#[derive(Debug, Default, Serialize)]
pub struct GuestStats {
    guest: String,
    /// Recorder of the guest's events.
    #[serde(skip)]
    pub tracer: Tracer,
    #[serde(skip)]
    door: OnceLock<Arc<dyn Door>>,
    /// Counters of the guest's activity.
    #[serde(flatten)]
    pub counters: GuestCounters,
    guest_errors: GuestErrors<GuestError>,
}

impl GuestStats {
    /// Creates zero counters for a guest with this name.
    pub fn new(guest: String, tracer: Tracer) -> Self {
        Self {
            guest,
            tracer,
            ..Self::default()
        }
    }

    /// Puts a door before everything that happens to the guest. Further calls are ignored.
    pub fn set_door(&self, door: Arc<dyn Door>) {
        let _ = self.door.set(door);
    }

    /// The door of the guest, if there is one.
    pub fn door(&self) -> Option<&Arc<dyn Door>> {
        self.door.get()
    }

    /// Returns the guest's name in logs.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Counts an error and logs it, at a limited rate.
    pub fn report(&self, error: GuestError) {
        self.guest_errors
            .report(error, format_args!("{}: {}", self.guest, error.text()));
    }

    /// Returns the number of errors of a kind.
    pub fn error_count(&self, error: GuestError) -> u64 {
        self.guest_errors.count(error)
    }

    /// Returns the number of errors of all kinds.
    pub fn total_errors(&self) -> u64 {
        GuestError::ALL.iter().map(|&error| self.error_count(error)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_by_kind() {
        let stats = GuestStats::new("a".into(), Tracer::default());
        stats.report(GuestError::BadRing);
        stats.report(GuestError::BadRing);
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["guest"], "a");
        assert_eq!(json["guest_errors"]["bad_ring"], 2);
        assert_eq!(json["guest_errors"]["bad_request"], 0);
        assert_eq!(json["requests"], 0);
        assert_eq!(stats.total_errors(), 2);
    }
}
