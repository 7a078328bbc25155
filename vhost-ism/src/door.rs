//! The door of a guest: what is between the guest's requests, bells and events and the device.

use std::fmt::Debug;
use std::time::Duration;

use crate::abi::Status;

/// Fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFate {
    /// Executed and answered, as without a door.
    Answered,
    /// Not executed, and answered with a status.
    Refused(Status),
    /// Executed and answered after a delay, in which the guest's later requests wait.
    Late(Duration),
}

/// Fate of a bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BellFate {
    /// Delivered, as without a door.
    Delivered,
    /// Lost.
    Lost,
    /// Delivered after a delay.
    Late(Duration),
    /// Delivered, and again after a delay.
    Repeated(Duration),
}

/// Kinds of events other than bells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The departure of a peer.
    PeerGone,
    /// A message of a peer.
    Message,
}

/// A door. It is called with locks of the session held, and must not call back.
pub trait Door: Debug + Send + Sync {
    /// Decides what becomes of a request, by its class and command.
    fn request(&self, command: (u8, u8)) -> RequestFate;

    /// Lets the VMM be asked to map. Returns false if that fails.
    fn map(&self) -> bool;

    /// Decides what becomes of the bell of a DMB, by its first chunk in the window of this guest, its owner.
    fn bell(&self, chunk: u32) -> BellFate;

    /// Lets an event pass. Returns false if it is lost.
    fn event(&self, kind: EventKind) -> bool;

    /// Does `work` after a delay, or not at all.
    fn later(&self, delay: Duration, work: Box<dyn FnOnce() + Send>);
}
