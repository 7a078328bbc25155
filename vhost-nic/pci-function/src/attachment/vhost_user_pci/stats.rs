//! Counters of an attachment, and its guest's errors.

use serde::Serialize;
use vhost_daemon::guest_error::GuestErrors;

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

vhost_daemon::guest_errors! {
    /// An error of a guest in its use of the virtqueues.
    pub enum GuestError {
        /// A ring with impossible indices; the queue is not served until the next connection.
        BadRing = "bad_ring",
        /// A descriptor chain that loops, breaks off, or points outside the guest's memory.
        BadChain = "bad_chain",
        /// A command that is unknown, truncated, or of an impossible length.
        BadCommand = "bad_command",
        /// A buffer too small for the data to be written into it.
        ShortBuffer = "short_buffer",
    }
}

/// Statistics of one attachment.
#[derive(Debug, Default, Serialize)]
pub struct VhostUserPciStats {
    #[serde(skip)]
    guest: String,
    /// Counters of the attachment's traffic.
    #[serde(flatten)]
    pub counters: VhostUserPciCounters,
    guest_errors: GuestErrors<GuestError>,
}

impl VhostUserPciStats {
    /// Creates counters at 0 for a guest with this name.
    pub fn new(guest: impl Into<String>) -> Self {
        Self {
            guest: guest.into(),
            ..Self::default()
        }
    }

    /// Returns the guest's name in logs.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Counts an error of the guest and logs it, at a limited rate.
    pub(super) fn report(&self, error: GuestError, what: &str) {
        self.guest_errors.report(error, format_args!("{}: {what}", self.guest));
    }

    /// Returns the number of errors of a kind.
    pub fn error_count(&self, error: GuestError) -> u64 {
        self.guest_errors.count(error)
    }
}
