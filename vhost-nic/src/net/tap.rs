//! Taps: observers of the frames that enter a switch, of the WQEs that frames end, and of commands.
//!
//! Frames get numbers when they enter the switch. Whoever ends a WQE because of a frame notes it under the frame's
//! number, on whatever thread and however much later.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use vhost_daemon::trace::COMPILED_IN;

use super::burst::Burst;
use super::mac_table::PortId;
use super::work::{Effect, FrameNumber};

/// Destination of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// The port of this name.
    Port(&'a str),
    /// Every port but the sender's.
    All,
    /// No port.
    Nowhere,
}

/// A command that was executed.
#[derive(Debug, Clone, Copy)]
pub struct CommandRecord<'a> {
    /// Delivery status, 0 if the command was delivered.
    pub delivery: u8,
    /// Input.
    pub input: &'a [u8],
    /// Output.
    pub output: &'a [u8],
    /// Time that the command took.
    pub duration: Duration,
}

/// Observer of a switch and the NICs at it. It must not wait: it is called by the threads that move the frames.
pub trait Tap: Send + Sync {
    /// Observes the frames of a burst before they are delivered. The first frame on the wire has the number `first`,
    /// and those of the others follow.
    fn frames(&self, port: &PortTap, destination: Destination<'_>, first: FrameNumber, burst: &Burst<'_>);

    /// Observes an effect at a port of `count` frames from `first` on.
    fn effect(&self, _port: &PortTap, _first: FrameNumber, _count: u32, _effect: Effect) {}

    /// Observes a command of the NIC at a port.
    fn command(&self, _port: &PortTap, _command: &CommandRecord<'_>) {}
}

/// The taps of a switch.
#[derive(Default)]
pub(super) struct Taps {
    /// Whether there are taps, without the lock.
    on: AtomicBool,
    /// Frames that have a number.
    numbered: AtomicU64,
    list: RwLock<Arc<[Arc<dyn Tap>]>>,
}

impl fmt::Debug for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taps").field("on", &self.on).finish_non_exhaustive()
    }
}

impl Taps {
    pub fn add(&self, tap: Arc<dyn Tap>) {
        self.change(|taps| taps.push(tap));
    }

    pub fn remove(&self, tap: &Arc<dyn Tap>) {
        self.change(|taps| taps.retain(|other| !Arc::ptr_eq(other, tap)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<dyn Tap>>)) {
        let mut list = self.list.write();
        let mut taps = list.to_vec();
        change(&mut taps);
        self.on.store(!taps.is_empty(), Ordering::Release);
        *list = taps.into();
    }

    fn each(&self, act: impl FnMut(&Arc<dyn Tap>)) {
        let list = self.list.read().clone();
        list.iter().for_each(act);
    }
}

/// A port as the taps of its switch see it.
#[derive(Debug, Clone)]
pub struct PortTap {
    id: PortId,
    name: Arc<str>,
    taps: Arc<Taps>,
}

impl PortTap {
    pub(super) fn new(id: PortId, name: &str, taps: &Arc<Taps>) -> Self {
        Self {
            id,
            name: name.into(),
            taps: taps.clone(),
        }
    }

    /// Number of the port, unique in its switch.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Name of the port.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether there are taps.
    #[inline]
    pub fn is_on(&self) -> bool {
        COMPILED_IN && self.taps.on.load(Ordering::Acquire)
    }

    /// Numbers the frames of a burst and shows them to the taps.
    #[cold]
    pub(super) fn frames(&self, destination: Destination<'_>, burst: &Burst<'_>) {
        let first = FrameNumber(self.taps.numbered.fetch_add(burst.count(), Ordering::Relaxed) + 1);
        burst.set_number(first);
        self.taps.each(|tap| tap.frames(self, destination, first, burst));
    }

    /// Shows the taps an effect of `count` frames from `first` on.
    #[cold]
    pub fn effect(&self, first: FrameNumber, count: u32, effect: Effect) {
        self.taps.each(|tap| tap.effect(self, first, count, effect));
    }

    /// Shows the taps a command of the NIC at the port.
    #[cold]
    pub fn command(&self, command: &CommandRecord<'_>) {
        self.taps.each(|tap| tap.command(self, command));
    }
}
