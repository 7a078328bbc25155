//! Media: the ways to a peer outside the daemon.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::join::{Offloads, Outgoing};

/// Reason why a medium drops what it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It can be no frame.
    Malformed,
    /// It is from another address than the peer's.
    OtherSource,
    /// It is VXLAN without the flag of a valid VNI.
    NoVni,
    /// It is VXLAN with reserved bits that are set.
    ReservedBits,
    /// It is VXLAN with another VNI.
    OtherVni,
}

/// Result of [`Medium::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// A frame is in the buffer.
    Frame,
    /// Nothing for now.
    Nothing,
    /// A peer has connected.
    Connected,
    /// The peer is gone.
    Disconnected,
    /// A frame was dropped, for this reason.
    Dropped(DropReason),
    /// The peer sent what can be no frame, and was disconnected for it.
    Confused,
}

/// A way to a peer. No method waits.
pub trait Medium: Send {
    /// Kind of the medium, for the statistics.
    fn kind(&self) -> &'static str;

    /// Descriptor that becomes readable when [`receive`](Self::receive) has something; `None` if it never will.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Further descriptor that becomes readable when [`receive`](Self::receive) has a change of the link.
    fn state_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Time after which frames can be sent again; `None` if the descriptor becomes writable then.
    fn retry(&self) -> Option<Duration> {
        None
    }

    /// Whether there is a peer. A medium without connections always has one.
    fn is_connected(&self) -> bool;

    /// Receives the next frame into `frame`, in place of what that holds.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming;

    /// Work on frames that the peer takes over.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// Sends a frame, which leaves the work of [`offloads`](Self::offloads) to the peer, at most. Returns false if it
    /// must be sent again later, and an error if that would not help.
    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool>;

    /// Sends what [`send`](Self::send) has kept. Returns false if some is left.
    fn flush(&mut self) -> bool {
        true
    }
}
