//! The only code that touches guest memory: requests out of the control queue, answers and events into it.
//!
//! Guest memory is written only under the queue's lock and only while the queue is ready. GET_VRING_BASE takes that lock
//! to stop the queue, so nothing is written into a guest that has reset the device.

use std::io::{Read, Write};
use std::sync::Arc;

use log::debug;
use vhost_user_backend::VringT;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};

use crate::control::MAX_REQUEST;
use crate::event::EventRing;
use crate::stats::{Finding, GuestStats};

use super::vring::Vring;

/// Guest memory as the front-end describes it at the moment.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// One request from the control queue.
pub struct Request {
    chain: Chain,
    /// The readable bytes; `None` when they cannot be read or are more than [`MAX_REQUEST`].
    pub bytes: Option<Vec<u8>>,
    /// How many bytes the answer may have.
    pub room: usize,
}

/// Takes the next chain that the driver made available, unless the queue has been stopped, or stopped and started again,
/// which `current` tells.
fn next_chain(vring: &Vring, memory: &Memory, stats: &GuestStats, current: impl FnOnce() -> bool) -> Option<Chain> {
    let mut state = vring.get_mut();
    if !state.get_queue().ready() || !current() {
        return None;
    }
    match state.get_queue_mut().iter(memory.memory()) {
        Ok(mut chains) => chains.next(),
        Err(error) => {
            debug!("{}: {error}", stats.guest());
            stats.find(Finding::BadRing);
            // Whoever looks for more chains would look again and again: the queue rests until the device is reset.
            state.get_queue_mut().set_ready(false);
            None
        }
    }
}

/// Writes into a chain and returns it to the driver, unless the queue has been stopped, or stopped and started again, which
/// `current` tells.
fn return_chain(vring: &Vring, memory: &Memory, chain: Chain, bytes: &[u8], current: impl FnOnce() -> bool) -> bool {
    let mut state = vring.get_mut();
    if !state.get_queue().ready() || !current() {
        return false;
    }
    let head = chain.head_index();
    let memory = memory.memory();
    let written = chain
        .writer(&memory)
        .ok()
        .and_then(|mut writer| writer.write_all(bytes).ok().map(|()| bytes.len() as u32))
        .unwrap_or(0);
    state.add_used(head, written).is_ok()
}

/// Interrupts the guest unless it asked not to be. Returns whether it was interrupted.
fn signal(vring: &Vring) -> bool {
    let mut state = vring.get_mut();
    state.get_queue().ready() && state.needs_notification().unwrap_or(true) && state.signal_used_queue().is_ok()
}

/// The next control request of the session that is `current`.
pub fn next_request(
    vring: &Vring,
    memory: &Memory,
    stats: &GuestStats,
    current: impl FnOnce() -> bool,
) -> Option<Request> {
    let chain = next_chain(vring, memory, stats, current)?;
    let memory = memory.memory();
    let bytes = chain.clone().reader(&memory).ok().and_then(|reader| {
        let mut bytes = Vec::with_capacity(MAX_REQUEST);
        reader.take(MAX_REQUEST as u64 + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() <= MAX_REQUEST).then_some(bytes)
    });
    let room = chain
        .clone()
        .writer(&memory)
        .map_or(0, |writer| writer.available_bytes());
    Some(Request { chain, bytes, room })
}

/// Answers a control request, if the session that asked is still `current`.
pub fn answer_request(vring: &Vring, memory: &Memory, request: Request, answer: &[u8], current: impl FnOnce() -> bool) {
    if return_chain(vring, memory, request.chain, answer, current) {
        signal(vring);
    }
}

/// The event queue of a session.
pub struct EventQueue {
    vring: Vring,
    memory: Memory,
    stats: Arc<GuestStats>,
    at_hand: Option<Chain>,
}

impl EventQueue {
    /// Events into this vring.
    pub fn new(vring: Vring, memory: Memory, stats: Arc<GuestStats>) -> Self {
        Self {
            vring,
            memory,
            stats,
            at_hand: None,
        }
    }
}

impl EventRing for EventQueue {
    fn peek(&mut self) -> Option<usize> {
        if self.at_hand.is_none() {
            // The sink lets go of this ring before the queue can be started again.
            self.at_hand = next_chain(&self.vring, &self.memory, &self.stats, || true);
        }
        let chain = self.at_hand.clone()?;
        Some(
            chain
                .writer(&self.memory.memory())
                .map_or(0, |writer| writer.available_bytes()),
        )
    }

    fn send(&mut self, event: &[u8]) {
        if let Some(chain) = self.at_hand.take() {
            return_chain(&self.vring, &self.memory, chain, event, || true);
        }
    }

    fn signal(&mut self) -> bool {
        signal(&self.vring)
    }

    fn await_buffers(&mut self) -> bool {
        let mut state = self.vring.get_mut();
        state.get_queue().ready() && state.enable_notification().unwrap_or(false)
    }
}
