//! The only code that touches guest memory: requests out of the control queue, answers and events into it.
//!
//! Guest memory is written only under the queue's lock and only while the queue is ready. GET_VRING_BASE takes that lock
//! to stop the queue, so nothing is written into a guest that has reset the device.

use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::Arc;

use log::debug;
use vhost_daemon::vring::{Memory, Vring};
use vhost_user_backend::{VringState, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryLoadGuard, GuestMemoryMmap};

use crate::control::MAX_REQUEST;
use crate::event::EventRing;
use crate::stats::{Finding, GuestStats};

type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// One request from the control queue.
pub struct Request {
    chain: Chain,
    /// The readable bytes; `None` when they cannot be read or are more than [`MAX_REQUEST`].
    pub bytes: Option<Vec<u8>>,
    /// How many bytes the answer may have.
    pub room: usize,
}

/// The answer to the request that was last taken from its queue, which could not take it: it was stopped meanwhile.
pub struct LateAnswer(Vec<u8>);

/// The next chain that the driver made available, of a queue that is ready.
fn next_chain(state: &mut VringState<Memory>, memory: &Memory, stats: &GuestStats) -> Option<Chain> {
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

/// Returns a chain to the driver, of a queue that is ready.
fn add_used(state: &mut VringState<Memory>, memory: &GuestMemoryMmap, head: u16, written: u32) {
    if let Err(error) = state.get_queue_mut().add_used(memory, head, written) {
        debug!("A used ring cannot be written: {error}");
    }
}

/// Writes into a chain and returns it to the driver, of a queue that is ready.
fn return_chain(state: &mut VringState<Memory>, memory: &Memory, chain: Chain, bytes: &[u8]) {
    let head = chain.head_index();
    let memory = memory.memory();
    let written = chain
        .writer(&memory)
        .ok()
        .and_then(|mut writer| writer.write_all(bytes).ok().map(|()| bytes.len() as u32))
        .unwrap_or(0);
    add_used(state, &memory, head, written);
}

/// Interrupts the guest unless it asked not to be. Returns whether it was interrupted.
fn signal(state: &mut VringState<Memory>, memory: &Memory) -> bool {
    let needed = state.get_queue_mut().needs_notification(memory.memory().deref());
    needed.unwrap_or(true) && state.signal_used_queue().is_ok()
}

/// Asks to be kicked for the next chain. Returns true when one has come meanwhile; never for a queue that is not ready.
pub fn await_chains(vring: &Vring, memory: &Memory) -> bool {
    let mut state = vring.get_mut();
    state.get_queue().ready()
        && state
            .get_queue_mut()
            .enable_notification(memory.memory().deref())
            .unwrap_or(false)
}

/// The next control request, unless the queue has been stopped, or stopped and started again, which `current` tells.
pub fn next_request(
    vring: &Vring,
    memory: &Memory,
    stats: &GuestStats,
    current: impl FnOnce() -> bool,
) -> Option<Request> {
    let chain = {
        let mut state = vring.get_mut();
        if !state.get_queue().ready() || !current() {
            return None;
        }
        next_chain(&mut state, memory, stats)?
    };
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

/// Answers a control request of the session that `current` tells the life of. Gives the answer back when the queue is
/// stopped while the session lives on.
pub fn answer_request(
    vring: &Vring,
    memory: &Memory,
    request: Request,
    answer: Vec<u8>,
    current: impl FnOnce() -> bool,
) -> Option<LateAnswer> {
    let mut state = vring.get_mut();
    if !current() {
        return None;
    }
    if !state.get_queue().ready() {
        return Some(LateAnswer(answer));
    }
    return_chain(&mut state, memory, request.chain, &answer);
    signal(&mut state, memory);
    None
}

/// Answers a request from before the queue was stopped, when nothing has been taken from it since. The ring is as it was, and
/// so is the request in it.
pub fn answer_late(vring: &Vring, memory: &Memory, stats: &GuestStats, answer: LateAnswer) -> Option<LateAnswer> {
    let mut state = vring.get_mut();
    if !state.get_queue().ready() {
        return Some(answer);
    }
    let queue = state.get_queue_mut();
    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
    if let Some(chain) = next_chain(&mut state, memory, stats) {
        return_chain(&mut state, memory, chain, &answer.0);
        signal(&mut state, memory);
    }
    None
}

/// The event queue of a session.
pub struct EventQueue {
    vring: Vring,
    memory: Memory,
    stats: Arc<GuestStats>,
}

impl EventQueue {
    /// Events into this vring.
    pub fn new(vring: Vring, memory: Memory, stats: Arc<GuestStats>) -> Self {
        Self { vring, memory, stats }
    }
}

impl EventRing for EventQueue {
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> bool {
        // The sink lets go of this ring before the queue can be started again.
        let mut state = self.vring.get_mut();
        if !state.get_queue().ready() {
            return false;
        }
        let Some(chain) = next_chain(&mut state, &self.memory, &self.stats) else {
            return false;
        };
        let head = chain.head_index();
        let memory = self.memory.memory();
        let written = match chain.writer(&memory) {
            Ok(mut writer) => {
                let event = event(writer.available_bytes());
                writer.write_all(&event).map_or(0, |()| event.len() as u32)
            }
            Err(_) => {
                event(0);
                0
            }
        };
        add_used(&mut state, &memory, head, written);
        true
    }

    fn signal(&mut self) -> bool {
        let mut state = self.vring.get_mut();
        state.get_queue().ready() && signal(&mut state, &self.memory)
    }

    fn await_buffers(&mut self) -> bool {
        await_chains(&self.vring, &self.memory)
    }
}
