//! Counters of a guest's activity, and its findings, readable while the daemon runs.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use vhost_daemon::finding::{Findings, Kind, Object, Observer, Severity};
use vhost_daemon::trace::Tracer;

use crate::door::Door;
use crate::ism_event::IsmEvent;
use crate::ism_finding::Finding;
use crate::tape::GuestTape;

vhost_daemon::counters! {
    /// Counters of one guest, over all its sessions.
    pub struct GuestCounters -> GuestSnapshot {
        /// Driver sessions begun.
        sessions,
        /// Control requests answered.
        requests,
        /// Control requests and moves answered with a status other than OK.
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
        /// Kicks of the doorbell or move queue.
        kicks,
        /// Doorbell bytes collected and forwarded to the other holders of the DMB.
        doorbells,
        /// Doorbells received for DMBs that this guest holds.
        rings,
        /// Events put on the event queue.
        events,
        /// Interrupts raised for events.
        interrupts,
        /// Messages sent to peers.
        messages,
        /// Moves answered.
        moves,
        /// Bytes moved into DMBs of peers.
        moved_bytes,
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
    #[serde(skip)]
    tape: Option<GuestTape>,
    /// Counters of the guest's activity.
    #[serde(flatten)]
    pub counters: GuestCounters,
    #[serde(flatten)]
    findings: Arc<Findings<Finding>>,
}

impl GuestStats {
    /// Creates zero counters for a guest with this name.
    pub fn new(guest: String, tracer: Tracer) -> Self {
        Self {
            findings: Arc::new(Findings::new(&guest).observed_by(trace(tracer))),
            guest,
            tracer,
            ..Self::default()
        }
    }

    /// Creates zero counters for a guest that may have a tape.
    pub fn with_tape(guest: String, tracer: Tracer, tape: Option<GuestTape>) -> Self {
        Self {
            tape,
            ..Self::new(guest, tracer)
        }
    }

    /// The tape of the guest, if there is one.
    pub fn tape(&self) -> Option<&GuestTape> {
        self.tape.as_ref()
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

    /// Reports a finding about an object, with the bytes that show it.
    pub fn report(&self, kind: Finding, object: Object, evidence: &[u8]) {
        self.report_with(kind, object, evidence, format_args!("{}", kind.text()));
    }

    /// Reports a finding with a text of its own.
    #[cold]
    pub fn report_with(&self, kind: Finding, object: Object, evidence: &[u8], text: fmt::Arguments<'_>) {
        self.findings.report(kind, object, evidence, text);
        if let Some(GuestTape { tape, guest }) = &self.tape {
            tape.finding(*guest, kind.name(), object, evidence, text);
        }
    }

    /// Returns the findings of the guest.
    pub fn findings(&self) -> &Arc<Findings<Finding>> {
        &self.findings
    }

    /// Returns the number of guest errors of all kinds.
    pub fn total_errors(&self) -> u64 {
        self.findings.counts_of(Severity::Error).map(|(_, count)| count).sum()
    }
}

/// Records findings in a guest's trace.
fn trace(tracer: Tracer) -> Observer<Finding> {
    Box::new(move |kind, object, count| {
        let arguments = || [object.number as u32, count as u32, 0, 0];
        tracer.record(IsmEvent::Finding, kind.index() as u32, arguments);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_by_kind() {
        let stats = GuestStats::new("a".into(), Tracer::default());
        stats.report(Finding::BadRing, Object::new("virtqueue", 0), &[]);
        stats.report(Finding::BadRing, Object::new("virtqueue", 0), &[]);
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(json["guest"], "a");
        assert_eq!(json["guest_errors"]["bad_ring"], 2);
        assert_eq!(json["guest_errors"]["bad_request"], 0);
        assert_eq!(json["requests"], 0);
        assert_eq!(stats.total_errors(), 2);
    }
}
