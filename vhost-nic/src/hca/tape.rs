//! The tape of a NIC: what a record of it or a replay sees, besides the doors of its function and its cable.

use std::borrow::Cow;
use std::fmt::{self, Debug};

use vhost_daemon::finding::Object;

/// An entry into a NIC, other than through its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A task of the NIC's thread.
    Step,
    /// Frames from the switch, all with the addresses of the first.
    Receive(&'a [Cow<'a, [u8]>]),
    /// The cable, plugged in or pulled.
    Cable(bool),
    /// The speed of the other end of the cable in Gb/s, `None` for all.
    PartnerSpeed(Option<u32>),
}

/// A tape. A NIC that has one is serviced entry by entry, and receives bytes, not payloads by reference.
pub trait Tape: Debug + Send + Sync {
    /// Calls `act` once, on the calling thread, when it is the NIC's turn.
    fn enter(&self, entry: Entry<'_>, act: &mut dyn FnMut());

    /// Takes a reading of the clock in nanoseconds, and returns the reading to use.
    fn time(&self, nanoseconds: u64) -> u64;

    /// Takes a finding.
    fn finding(&self, kind: &'static str, object: Object, evidence: &[u8], text: fmt::Arguments<'_>);

    /// Ends the tape, before the NIC's thread ends.
    fn end(&self);
}
