//! The tape of a guest's faults: strikes inside a device, in a record or from one.

use std::fmt::Debug;

/// Work that a fault delays.
pub type Work = Box<dyn FnOnce() + Send>;

/// A strike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// Number of the door.
    pub door: u32,
    /// Number of the object.
    pub object: u32,
    /// The fault, in JSON.
    pub fault: String,
    /// The random number of the strike.
    pub random: u64,
}

/// A tape of the faults of a guest, as far as a device acts on them. What strikes outside of a device, as on a wire, is
/// on no tape: its effect is an input.
pub trait FaultTape: Debug + Send + Sync {
    /// Takes a strike.
    fn struck(&self, strike: &Strike);

    /// Returns the strike of a replay at a door, if its fault is one that the door asks about.
    fn replayed(&self, door: u32, object: u32, asks: &mut dyn FnMut(&str) -> bool) -> Option<Strike>;

    /// Takes work that is late. Returns the work to do at its time, if any.
    fn late(&self, work: Work) -> Option<Work>;

    /// Calls `act`, an action of a fault (in JSON), when it is the caller's turn.
    fn act(&self, fault: &str, act: &mut dyn FnMut());
}
