//! The door of completion and event queues: what is between the device and the entry it writes.

use std::fmt::Debug;

use mlx5_prm::queue_entry::{Cqe, EventType};

/// Fate of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CqeFate {
    /// Written, as without a door.
    Written,
    /// Written, as an error of its queue.
    Failed,
    /// Not written now.
    Withheld,
    /// The CQ overruns in place of it.
    Overrun,
}

/// Number of times that an event is written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posting {
    /// Not now.
    Never,
    /// Once, as without a door.
    Once,
    /// Twice.
    Twice,
}

/// An event on its way into an event queue.
#[derive(Debug, Clone, Copy)]
pub struct EventEntry<'a> {
    /// Type.
    pub event_type: EventType,
    /// Subtype.
    pub sub_type: u8,
    /// Data, at most 28 bytes.
    pub data: &'a [u8],
}

/// A door that entries pass. It is called with locks of queues held, and must neither block nor call back.
pub trait EntryDoor: Debug + Send + Sync {
    /// Lets a CQE of CQ `cq` for a queue pair, send or receive queue pass, changed or not; `lower` is the lower half of
    /// a 128-byte CQE.
    fn cqe(&self, cq: u32, queue: u32, lower: &[u8], cqe: &mut Cqe) -> CqeFate;

    /// Lets an event for EQ `eq` pass.
    fn eqe(&self, eq: u32, event: &EventEntry<'_>) -> Posting;
}
