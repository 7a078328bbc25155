//! Errors of a guest or its driver. The guest gets the answer that hardware gives; the device counts.

/// The guest errors of a NIC, by kind.
pub type GuestErrors = vhost_daemon::guest_error::GuestErrors<GuestError>;

vhost_daemon::guest_errors! {
    /// An error of a guest or its driver.
    pub enum GuestError {
        /// A command that the device does not implement.
        UnknownCommand = "unknown_command",
        /// A command answered with a status other than OK.
        CommandRefused = "command_refused",
        /// A command whose queue entry or mailboxes could not be read or written.
        CommandUnreadable = "command_unreadable",
        /// A BAR access that hits no register, or has the wrong width for it.
        StrayAccess = "stray_access",
        /// A doorbell for a queue that does not exist.
        StrayDoorbell = "stray_doorbell",
        /// A doorbell record that cannot be read.
        UnreadableDoorbellRecord = "unreadable_doorbell_record",
        /// A malformed send WQE.
        BadSendWqe = "bad_send_wqe",
        /// A malformed receive WQE.
        BadReceiveWqe = "bad_receive_wqe",
        /// A CQE that could not be written.
        LostCqe = "lost_cqe",
        /// A completion for a full CQ.
        CqOverrun = "cq_overrun",
        /// An EQE that could not be written.
        LostEqe = "lost_eqe",
        /// An event for a full EQ.
        EqOverrun = "eq_overrun",
    }
}
