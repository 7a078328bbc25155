//! Metrics of the daemon.

use std::sync::Arc;

use vhost_daemon::finding::Severity;
use vhost_daemon::{Labels, Metrics};
use vhost_ism::fabric::FabricStats;
use vhost_ism::guest::Guest;
use vhost_ism::stats::GuestSnapshot;

/// Name and help of a guest's counter, and its value.
type Counter = (&'static str, &'static str, fn(&GuestSnapshot) -> u64);

const COUNTERS: [Counter; 16] = [
    ("guest_sessions", "Driver sessions begun", |guest| guest.sessions),
    ("requests", "Control requests answered", |guest| guest.requests),
    (
        "refusals",
        "Control requests and moves answered with a status other than OK",
        |guest| guest.refusals,
    ),
    ("allocs", "DMBs allocated", |guest| guest.allocs),
    ("attaches", "DMBs attached", |guest| guest.attaches),
    ("detaches", "DMBs detached", |guest| guest.detaches),
    ("maps", "Slabs and doorbell areas mapped", |guest| guest.maps),
    ("unmaps", "Slabs unmapped", |guest| guest.unmaps),
    ("kicks", "Kicks of the doorbell or move queue", |guest| guest.kicks),
    ("doorbells", "Doorbells rung by the guest", |guest| guest.doorbells),
    ("rings", "Doorbells received by the guest", |guest| guest.rings),
    ("events", "Events put on the event queue", |guest| guest.events),
    ("interrupts", "Interrupts raised for events", |guest| guest.interrupts),
    ("messages", "Messages sent to peers", |guest| guest.messages),
    ("moves", "Moves answered", |guest| guest.moves),
    ("moved_bytes", "Bytes moved into DMBs of peers", |guest| {
        guest.moved_bytes
    }),
];

/// Adds the metrics of fabric and guests.
pub fn collect(metrics: &mut Metrics, fabric: &FabricStats, guests: &[Arc<Guest>]) {
    let one = |value: u64| [(Labels::new(), value)];
    metrics.gauge("sessions", "Sessions that are up", one(fabric.sessions as u64));
    metrics.gauge("slabs", "Slabs that exist", one(fabric.slabs as u64));
    metrics.gauge("slab_bytes", "Bytes in slabs", one(fabric.slab_bytes));
    metrics.gauge(
        "used_bytes",
        "Bytes in allocated blocks of slabs",
        one(fabric.used_bytes),
    );
    metrics.gauge("dmbs", "DMBs with a holder", one(fabric.dmbs as u64));
    metrics.counter(
        "lost_blocks",
        "Blocks that could not be zeroed",
        one(fabric.lost_blocks),
    );

    let stats = || guests.iter().map(|guest| guest.stats());
    for (name, help, read) in COUNTERS {
        let samples = stats().map(|guest| {
            let labels = vec![("guest", guest.guest().to_owned())];
            (labels, read(&guest.counters.snapshot()))
        });
        metrics.counter(name, help, samples);
    }
    let errors = stats().flat_map(|guest| {
        guest.findings().counts_of(Severity::Error).map(move |(kind, count)| {
            let labels = vec![("guest", guest.guest().to_owned()), ("kind", kind.to_owned())];
            (labels, count)
        })
    });
    metrics.counter("guest_errors", "Errors of the guest", errors);
}
