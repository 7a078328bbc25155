//! The tape of a fabric: what a record of it or a replay sees, besides the queues of the guests.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;
use serde::{Deserialize, Serialize};
use vhost_daemon::finding::Object;

/// An entry into the devices of a fabric. Connections are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Creation of the fabric and its guests.
    Create,
    /// A new connection of a guest's VMM.
    Connect {
        /// Number of the guest.
        guest: u16,
    },
    /// A read of the configuration space.
    Config {
        /// Connection.
        connection: u32,
        /// Offset in the space.
        offset: u32,
        /// Length in bytes.
        length: u32,
    },
    /// Start of the device.
    Start(u32),
    /// A kick of the control queue.
    Control(u32),
    /// A kick of the event queue.
    Event(u32),
    /// A kick of the doorbell queue.
    Doorbell(u32),
    /// Stop of the device.
    Stop(u32),
    /// End of a connection.
    Close(u32),
    /// The answer of a VMM to what its control worker has asked.
    Answer {
        /// Connection.
        connection: u32,
        /// Whether the VMM can map, or has mapped or unmapped.
        ok: bool,
    },
    /// Reset of a stopped device: its VMM has unmapped the doorbell area.
    Abandoned {
        /// Number of the guest.
        guest: u16,
    },
    /// End of a guest's session.
    End {
        /// Number of the guest.
        guest: u16,
    },
    /// Work that a fault delayed, by its number.
    Late(u32),
    /// A kick of the move queue.
    Move(u32),
    /// Reset of a guest's session by the device.
    Reset {
        /// Number of the guest.
        guest: u16,
    },
}

/// A tape. Entries take turns, and are executed on the calling thread.
pub trait Tape: Debug + Send + Sync {
    /// Calls `act` once, when it is the caller's turn. `act` returns what the entry reads.
    fn enter(&self, entry: Entry, act: &mut dyn FnMut() -> Vec<u8>);

    /// Does the same if `condition` holds in the turn.
    fn enter_if(&self, condition: &mut dyn FnMut() -> bool, entry: Entry, act: &mut dyn FnMut());

    /// Takes a random number, and returns the number to use.
    fn random(&self, number: u64) -> u64;

    /// Takes a finding about a guest.
    fn finding(&self, guest: u16, kind: &'static str, object: Object, evidence: &[u8], text: fmt::Arguments<'_>);

    /// Takes the awake word of a guest's doorbell area.
    fn awake(&self, guest: u16, awake: bool);

    /// Takes the chunks below `limit` whose doorbells a guest has rung, and puts those to use in their place.
    fn collect(&self, guest: u16, limit: u32, rung: &mut Vec<u32>);

    /// Spends the time of a fault.
    fn sleep(&self, time: Duration);

    /// Takes whether the doorbell of a chunk was rung, and returns the answer to use.
    fn take(&self, guest: u16, chunk: u32, rung: bool) -> bool;

    /// Takes whether a guest needs an event besides the bell of a chunk in one of its slabs, and returns the answer to
    /// use.
    fn bell(&self, guest: u16, chunk: u32, asleep: bool) -> bool;
}

/// The tape of one guest.
#[derive(Debug, Clone)]
pub struct GuestTape {
    /// The tape of the fabric.
    pub tape: Arc<dyn Tape>,
    /// Number of the guest.
    pub guest: u16,
}

impl GuestTape {
    /// Calls `act` as an entry, or without a tape as it is.
    pub fn enter(tape: Option<&Self>, entry: impl FnOnce(u16) -> Entry, mut act: impl FnMut()) {
        match tape {
            None => act(),
            Some(Self { tape, guest }) => tape.enter(entry(*guest), &mut || {
                act();
                Vec::new()
            }),
        }
    }
}

/// Source of random numbers: the operating system's, or a tape.
#[derive(Debug, Clone, Default)]
pub struct Random(pub Option<Arc<dyn Tape>>);

impl Random {
    /// Returns 64 random bits, not all of them zero.
    pub fn nonzero(&self) -> u64 {
        let number = loop {
            let number = rand::rng().next_u64();
            if number != 0 {
                break number;
            }
        };
        match &self.0 {
            None => number,
            Some(tape) => tape.random(number),
        }
    }
}
