//! Errors of a guest, counted by kind.

use std::sync::atomic::{AtomicU64, Ordering};

use log::{debug, warn};

macro_rules! guest_errors {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Kind of error of a guest or its driver. The guest gets the response hardware would give; the device counts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum GuestError {
            $($(#[$doc])* $name,)*
        }

        impl GuestError {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Name in statistics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

guest_errors! {
    /// Command with an opcode this device does not support.
    UnknownCommand = "unknown_command",
    /// Command that was refused.
    CommandRefused = "command_refused",
    /// Command whose entry or mailboxes could not be read or written.
    CommandUnreadable = "command_unreadable",
    /// Access to a BAR offset without a register, or of the wrong width.
    StrayAccess = "stray_access",
    /// Doorbell of a queue that does not exist.
    StrayDoorbell = "stray_doorbell",
    /// Doorbell record that cannot be read.
    UnreadableDoorbellRecord = "unreadable_doorbell_record",
    /// Invalid send WQE.
    BadSendWqe = "bad_send_wqe",
    /// Invalid receive WQE.
    BadReceiveWqe = "bad_receive_wqe",
    /// CQE that could not be written.
    LostCqe = "lost_cqe",
    /// CQE for a full completion queue.
    CqOverrun = "cq_overrun",
    /// EQE that could not be written.
    LostEqe = "lost_eqe",
    /// EQE for a full event queue.
    EqOverrun = "eq_overrun",
}

/// Number of errors of each kind.
#[derive(Debug, Default)]
pub struct GuestErrors([AtomicU64; GuestError::ALL.len()]);

impl GuestErrors {
    /// Counts an error. The first of its kind is logged as a warning, later ones at debug level.
    pub fn report(&self, kind: GuestError, what: std::fmt::Arguments<'_>) {
        if self.0[kind as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("{what} (further ones are only counted as {})", kind.name());
        } else {
            debug!("{what}");
        }
    }

    /// Returns the number of errors of a kind.
    pub fn count(&self, kind: GuestError) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Returns name and number of each kind with errors.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        GuestError::ALL
            .iter()
            .map(|&kind| (kind.name(), self.count(kind)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
