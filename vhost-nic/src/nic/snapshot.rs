//! Snapshot of a NIC's state and counters, for statistics.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::Value;
use vhost_daemon::finding::Severity;

use super::Nic;
use crate::dma::PurposeStats;
use crate::hca::Hca;
use crate::hca::memory_budget::BudgetSnapshot;
use crate::hca::pcie_account::PcieAccount;
use crate::hca::port_counters::CompletionCounters;
use crate::net::{PortStats, SwitchPort};
use crate::pci::MsixStats;

/// Snapshot of a NIC's state and counters.
#[derive(Debug, Clone, Serialize)]
pub struct NicSnapshot {
    /// Name in logs.
    pub name: String,
    /// Permanent MAC address.
    pub mac: String,
    /// Whether the guest's driver has started the HCA.
    pub started: bool,
    /// Whether the link is up.
    pub link_up: bool,
    /// Speed of the link in Gb/s; 0 without a link.
    pub speed_gbps: u32,
    /// Live objects: each kind a map from numbers to objects; null, and left out, in a summary.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub hca: Value,
    /// Number of objects by kind; kinds without any are left out.
    pub objects: BTreeMap<&'static str, usize>,
    /// Pages of memory that the guest's driver gave to the firmware.
    pub pages: usize,
    /// Host memory of the guest's objects.
    pub host_memory: BudgetSnapshot,
    /// Accesses to guest memory.
    pub dma: Vec<PurposeStats>,
    /// Errors of the guest.
    pub guest_errors: BTreeMap<&'static str, u64>,
    /// Number of suspicions by kind; kinds without any are left out.
    pub suspicions: BTreeMap<&'static str, u64>,
    /// PCIe transactions.
    pub pcie: PcieAccount,
    /// Model time spent for PCIe transactions, in nanoseconds.
    pub pcie_latency_ns: u64,
    /// WQEs executed from the copy in a doorbell register.
    pub blue_flame_wqes: u64,
    /// Writes to doorbell registers.
    pub doorbells: u64,
    /// Commands fetched by the firmware.
    pub commands: u64,
    /// Interrupts.
    pub interrupts: MsixStats,
    /// Traffic of the physical port.
    pub port: PortSnapshot,
    /// Completions of all queues.
    pub completions: CompletionSnapshot,
    /// Counters of the switch port, if connected.
    pub wire: Option<PortStats>,
}

impl NicSnapshot {
    /// Takes a snapshot with these live objects.
    pub(super) fn take(nic: &Nic, objects: Value) -> Self {
        let hca = &*nic.hca;
        let port = hca.port.state();
        let found = |severity| {
            let counts = hca.findings.all().counts_of(severity);
            counts.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            name: nic.name.clone(),
            mac: hca.vport.read().permanent.to_string(),
            started: hca.port.initialized(),
            link_up: port.link_up(),
            speed_gbps: port.speed(),
            hca: objects,
            objects: hca.object_counts(),
            pages: nic.firmware.pages_held(),
            host_memory: hca.budget.snapshot(),
            dma: hca.dma.stats(),
            guest_errors: found(Severity::Error),
            suspicions: found(Severity::Suspicion),
            pcie: hca.account(),
            pcie_latency_ns: hca.pcie_latency.spent_ns(),
            blue_flame_wqes: hca.blue_flame.executed(),
            doorbells: nic.uars.doorbells(),
            commands: nic.firmware.commands(),
            interrupts: hca.msix.stats(),
            port: PortSnapshot::take(hca),
            completions: CompletionSnapshot::from(&*hca.completion_counters),
            wire: nic.engine.wire().map(SwitchPort::stats),
        }
    }
}

/// Completions written, by destination of their messages' data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CompletionSnapshot {
    /// To memory, or messages without data.
    pub plain: u64,
    /// Into the CQE, up to 32 bytes.
    pub inline_32: u64,
    /// Into the lower half of a 128-byte CQE, up to 64 bytes.
    pub inline_64: u64,
    /// Of the plain ones, those of compressed sessions.
    pub compressed: u64,
    /// Compressed sessions: title CQEs.
    pub compressed_sessions: u64,
}

impl From<&CompletionCounters> for CompletionSnapshot {
    fn from(counters: &CompletionCounters) -> Self {
        Self {
            plain: counters.plain.load(Relaxed),
            inline_32: counters.inline_32.load(Relaxed),
            inline_64: counters.inline_64.load(Relaxed),
            compressed: counters.compressed.load(Relaxed),
            compressed_sessions: counters.sessions.load(Relaxed),
        }
    }
}

/// Traffic of a NIC's physical port.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PortSnapshot {
    /// Frames received from the wire.
    pub received: u64,
    /// Bytes received from the wire.
    pub received_bytes: u64,
    /// Frames sent to the wire.
    pub sent: u64,
    /// Bytes sent to the wire.
    pub sent_bytes: u64,
    /// Frames looped back to the function.
    pub loopback: u64,
    /// Frames from the wire that matched no flow table entry.
    pub unmatched: u64,
    /// Received frames of which copies were dropped because the flow tables take too many steps.
    pub steering_limit: u64,
    /// Frames from the wire while the port was down, or longer than its MTU.
    pub refused: u64,
    /// Frames dropped for lack of a receive WQE.
    pub out_of_buffer: u64,
    /// Frames for receive queues that are not ready.
    pub not_ready: u64,
    /// Frames that could not be sent.
    pub send_errors: u64,
}

impl PortSnapshot {
    fn take(hca: &Hca) -> Self {
        let counters = &hca.port_counters;
        let ((received, received_bytes), (sent, sent_bytes)) = (counters.received.total(), counters.sent.total());
        Self {
            received,
            received_bytes,
            sent,
            sent_bytes,
            loopback: counters.loopback.get().0,
            unmatched: counters.unmatched.load(Relaxed),
            steering_limit: hca.steering.exhausted(),
            refused: counters.refused.load(Relaxed),
            out_of_buffer: counters.out_of_buffer.load(Relaxed),
            not_ready: counters.not_ready.load(Relaxed),
            send_errors: counters.send_errors.load(Relaxed),
        }
    }
}
