//! Counters of an attachment, and its guest's errors.

use std::sync::Arc;

use serde::Serialize;
use vhost_daemon::finding::{Findings, Object, Observer};

vhost_daemon::counters! {
    /// Counters of one attachment, over all its connections.
    pub struct VhostUserPciCounters -> VhostUserPciSnapshot {
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
    }
}

vhost_daemon::findings! {
    /// A mistake of a guest in its use of the virtqueues.
    pub enum Finding {
        /// A ring with impossible indices; the queue is not served until the next connection.
        BadRing = Error "bad_ring" {
            rule: "The available index is ahead of what was used by at most the size of the ring.",
            source: "virtio 1.2, 2.7.6 and 2.7.13",
            answer: "the queue is not served until the next connection",
        },
        /// A descriptor chain that loops, breaks off, or points outside the guest's memory.
        BadChain = Error "bad_chain" {
            rule: "A descriptor chain ends, and points to guest memory.",
            source: "virtio 1.2, 2.7.5",
            answer: "the chain is returned unused",
        },
        /// A command that is unknown, truncated, or of an impossible length.
        BadCommand = Error "bad_command" {
            rule: "A command is one of `enum virtio_pcidev_ops`, with the bytes of its length.",
            source: "include/uapi/linux/virtio_pcidev.h",
            answer: "the command has no effect",
        },
        /// A buffer too small for the data to be written into it.
        ShortBuffer = Error "short_buffer" {
            rule: "A buffer has room for the data that is read or the interrupt.",
            source: "include/uapi/linux/virtio_pcidev.h",
            answer: "the buffer is returned unused",
        },
    }
}

/// Statistics of one attachment.
#[derive(Debug, Default, Serialize)]
pub struct VhostUserPciStats {
    /// Counters of the attachment's traffic.
    #[serde(flatten)]
    pub counters: VhostUserPciCounters,
    #[serde(flatten)]
    findings: Arc<Findings<Finding>>,
}

impl VhostUserPciStats {
    /// Creates counters at 0 for a guest with this name.
    pub fn new(guest: &str) -> Self {
        Self {
            findings: Arc::new(Findings::new(guest)),
            ..Self::default()
        }
    }

    /// Creates counters at 0 for a guest with this name, whose findings `observer` sees.
    pub fn observed_by(guest: &str, observer: Observer<Finding>) -> Self {
        Self {
            findings: Arc::new(Findings::new(guest).observed_by(observer)),
            ..Self::default()
        }
    }

    /// Returns the guest's name in logs.
    pub fn guest(&self) -> &str {
        self.findings.guest()
    }

    /// Reports a mistake in the use of a virtqueue.
    pub(super) fn report(&self, kind: Finding, queue: u16, evidence: &[u8], text: &str) {
        let object = Object::new("virtqueue", queue.into());
        self.findings.report(kind, object, evidence, format_args!("{text}"));
    }

    /// Returns the findings of the guest.
    pub fn findings(&self) -> &Arc<Findings<Finding>> {
        &self.findings
    }
}
