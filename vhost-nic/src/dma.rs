//! Accesses of the NIC to guest memory, counted by purpose.

pub use pci_function::dma::{
    Backing, DmaError, GuestMap, Held, MemoryAccess, MemoryDoor, MemoryTape, PurposeStats, Result,
};

/// Guest memory, as the NIC accesses it.
pub type Dma = pci_function::dma::Dma<Purpose>;

pci_function::purposes! {
    /// Purpose of an access to guest memory.
    pub enum Purpose {
        /// Entry or input mailbox of a command.
        CommandFetch = "command_fetch",
        /// Output or status of a command.
        CommandReply = "command_reply",
        /// Doorbell record.
        DoorbellRecord = "doorbell_record",
        /// Send WQE.
        SendWqe = "send_wqe",
        /// Receive WQE.
        ReceiveWqe = "receive_wqe",
        /// Payload to send.
        Gather = "gather",
        /// Received payload.
        Scatter = "scatter",
        /// Completion queue entry.
        Cqe = "cqe",
        /// Event queue entry.
        Eqe = "eqe",
        /// Target or result of an atomic operation.
        Atomic = "atomic",
        /// List of translations.
        Translation = "translation",
        /// Doorbell record or WQE that is not executed: a look for mistakes of the driver, for work before its
        /// doorbell, or for what to flush.
        Look = "look",
    }
}
