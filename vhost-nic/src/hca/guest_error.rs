//! What a guest did wrong, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use log::{debug, warn};

macro_rules! guest_errors {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A mistake of a guest or its driver. The guest gets the answer hardware would give; we count.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum GuestError {
            $($(#[$doc])* $name,)*
        }

        impl GuestError {
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

guest_errors! {
    /// A command that this device does not know.
    UnknownCommand = "unknown_command",
    /// A command that was refused.
    CommandRefused = "command_refused",
    /// A command whose entry or mailboxes could not be read or written.
    CommandUnreadable = "command_unreadable",
    /// An access to a register that is not there, or not of that width.
    StrayAccess = "stray_access",
    /// A doorbell for a queue that does not exist.
    StrayDoorbell = "stray_doorbell",
    /// A doorbell record that cannot be read.
    UnreadableDoorbellRecord = "unreadable_doorbell_record",
    /// A send WQE that makes no sense.
    BadSendWqe = "bad_send_wqe",
    /// A receive WQE that makes no sense.
    BadReceiveWqe = "bad_receive_wqe",
    /// A completion that could not be written.
    LostCqe = "lost_cqe",
    /// A completion queue that was full.
    CqOverrun = "cq_overrun",
    /// An event that could not be written.
    LostEqe = "lost_eqe",
    /// An event queue that was full.
    EqOverrun = "eq_overrun",
}

/// How often what was found.
#[derive(Debug, Default)]
pub struct GuestErrors([AtomicU64; GuestError::ALL.len()]);

impl GuestErrors {
    /// Counts a finding. The first of its kind is told as a warning, the others for those who look for them.
    pub fn report(&self, finding: GuestError, what: std::fmt::Arguments<'_>) {
        if self.0[finding as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("{what} (further ones are only counted, as {})", finding.name());
        } else {
            debug!("{what}");
        }
    }

    /// How often it was found.
    pub fn count(&self, finding: GuestError) -> u64 {
        self.0[finding as usize].load(Ordering::Relaxed)
    }

    /// All that was found.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        GuestError::ALL
            .iter()
            .map(|&finding| (finding.name(), self.count(finding)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
