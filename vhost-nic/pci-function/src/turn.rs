//! Turns: what enters a function passes a door, which can make the entries of several functions take turns.

use crate::msix::Masking;

/// Space of a register access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Configuration space.
    Config,
    /// A BAR.
    Bar(u8),
}

/// Change of a function by its attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Reset.
    Reset,
    /// End of the machine.
    PowerCycle,
    /// Connection of the interrupts.
    Connect(Masking),
    /// Disconnection of the interrupts.
    Disconnect,
    /// A vector that the attachment raises itself.
    Raise(u16),
    /// Vectors that can be sent again.
    Retry {
        /// The first.
        first: u16,
        /// Their number.
        count: u16,
    },
}

/// A door that everything passes that enters a function, besides changes of the mappings of guest memory. Each method
/// calls the closure once, on the calling thread.
pub trait FunctionDoor: Send + Sync {
    /// Lets a read pass.
    fn read(&self, space: Space, offset: u64, data: &mut [u8], read: &mut dyn FnMut(&mut [u8]));

    /// Lets a write pass.
    fn write(&self, space: Space, offset: u64, data: &[u8], write: &mut dyn FnMut());

    /// Lets a change pass.
    fn change(&self, change: Change, act: &mut dyn FnMut());
}
