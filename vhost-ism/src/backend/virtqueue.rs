//! Virtqueue access: requests from the control queue, answers and events into theirs. Only this and
//! [`move_queue`](super::move_queue) touch guest memory.
//!
//! Guest memory is written only under the queue's lock and only while the queue is ready. GET_VRING_BASE takes that
//! lock to stop the queue, so the memory of a guest that has reset the device is not written.

use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::Arc;

use log::debug;
use parking_lot::Mutex;
use vhost_daemon::GuardedRam;
use vhost_daemon::finding::Object;
use vhost_daemon::vring::{Memory, Vring};
use vhost_user_backend::{VringState, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{ByteValued, GuestAddressSpace, GuestMemoryLoadGuard, GuestMemoryMmap};

use crate::abi::{CONTROL_QUEUE, EVENT_QUEUE};
use crate::connection::{Outcome, Request};
use crate::control::MAX_REQUEST;
use crate::event::{EventRing, Sent};
use crate::ism_finding::{Descriptor, Finding};
use crate::stats::GuestStats;

/// A chain of descriptors.
pub type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// Takes the next available chain from a queue that is ready.
pub fn next_chain(state: &mut VringState<Memory>, memory: &Memory, queue: u16, stats: &GuestStats) -> Option<Chain> {
    match state.get_queue_mut().iter(memory.memory()) {
        Ok(mut chains) => chains.next(),
        Err(error) => {
            debug!("{}: {error}", stats.guest());
            let next = state.get_queue().next_avail().to_le_bytes();
            stats.report(Finding::BadRing, Object::new("virtqueue", queue.into()), &next);
            // Looking for more chains would never end: the queue is not served until the device is reset.
            state.get_queue_mut().set_ready(false);
            None
        }
    }
}

/// Returns the first descriptor of a chain.
pub fn descriptor(chain: &Chain) -> Descriptor {
    match chain.clone().next() {
        Some(first) => first.as_slice().to_vec(),
        None => chain.head_index().to_le_bytes().to_vec(),
    }
}

/// Puts a chain on the used ring of a queue that is ready.
fn add_used(state: &mut VringState<Memory>, memory: &GuestMemoryMmap, head: u16, written: u32) {
    if let Err(error) = state.get_queue_mut().add_used(memory, head, written) {
        debug!("cannot write a used ring: {error}");
    }
}

/// Writes `bytes` into a chain of a queue that is ready, and puts it on the used ring.
pub fn return_chain(state: &mut VringState<Memory>, memory: &Memory, chain: Chain, bytes: &[u8]) {
    let head = chain.head_index();
    let memory = memory.memory();
    let written = chain
        .writer(&memory)
        .ok()
        .and_then(|mut writer| writer.write_all(bytes).ok().map(|()| bytes.len() as u32))
        .unwrap_or(0);
    add_used(state, &memory, head, written);
}

/// Interrupts the guest unless it has suppressed the interrupt. Returns whether it was interrupted.
pub fn signal(vring: &Vring, state: &mut VringState<Memory>, memory: &Memory) -> bool {
    let needed = state.get_queue_mut().needs_notification(memory.memory().deref());
    needed.unwrap_or(true) && vring.signal_used_queue().is_ok()
}

/// Enables the kick for the next chain. Returns whether one has become available meanwhile; false if the queue is not
/// ready.
pub fn await_chains(vring: &Vring, memory: &Memory) -> bool {
    let mut state = vring.get_mut();
    state.get_queue().ready()
        && state
            .get_queue_mut()
            .enable_notification(memory.memory().deref())
            .unwrap_or(false)
}

/// Takes the next control request, unless the queue has been stopped, or stopped and restarted: then `current` returns
/// false.
pub fn next_request(
    vring: &Vring,
    memory: &Memory,
    stats: &GuestStats,
    current: &dyn Fn() -> bool,
) -> Option<(Chain, Request)> {
    let chain = {
        let mut state = vring.get_mut();
        if !state.get_queue().ready() || !current() {
            return None;
        }
        next_chain(&mut state, memory, CONTROL_QUEUE, stats)?
    };
    let memory = memory.memory();
    let bytes = chain.clone().reader(&memory).ok().and_then(|reader| {
        let mut bytes = Vec::with_capacity(MAX_REQUEST);
        reader.take(MAX_REQUEST as u64 + 1).read_to_end(&mut bytes).ok()?;
        (1..=MAX_REQUEST).contains(&bytes.len()).then_some(bytes)
    });
    let bytes = bytes.ok_or_else(|| descriptor(&chain));
    let room = chain
        .clone()
        .writer(&memory)
        .map_or(0, |writer| writer.available_bytes());
    Some((chain, Request { bytes, room }))
}

/// Answers a control request, unless `current` returns false: then its session has ended.
pub fn answer_request(
    vring: &Vring,
    memory: &Memory,
    chain: Chain,
    answer: &[u8],
    current: &dyn Fn() -> bool,
) -> Outcome {
    let mut state = vring.get_mut();
    if !current() {
        return Outcome::Dropped;
    }
    if !state.get_queue().ready() {
        return Outcome::Stopped;
    }
    return_chain(&mut state, memory, chain, answer);
    let interrupt = signal(vring, &mut state, memory);
    Outcome::Written { interrupt }
}

/// Answers a request from before the queue was stopped, as long as no later request has been taken from it. The ring,
/// and the request in it, are unchanged.
pub fn answer_late(vring: &Vring, memory: &Memory, stats: &GuestStats, answer: &[u8]) -> Outcome {
    let mut state = vring.get_mut();
    if !state.get_queue().ready() {
        return Outcome::Stopped;
    }
    let queue = state.get_queue_mut();
    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
    let Some(chain) = next_chain(&mut state, memory, CONTROL_QUEUE, stats) else {
        return Outcome::Dropped;
    };
    return_chain(&mut state, memory, chain, answer);
    let interrupt = signal(vring, &mut state, memory);
    Outcome::Written { interrupt }
}

/// The event queue of a session.
pub struct EventQueue {
    vring: Vring,
    memory: Memory,
    /// Kept as long as the memory is in use.
    _ram: Arc<Mutex<GuardedRam>>,
    stats: Arc<GuestStats>,
}

impl EventQueue {
    /// Creates the event queue on this vring.
    pub fn new(vring: Vring, memory: Memory, ram: Arc<Mutex<GuardedRam>>, stats: Arc<GuestStats>) -> Self {
        Self {
            vring,
            memory,
            _ram: ram,
            stats,
        }
    }
}

impl EventRing for EventQueue {
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent {
        // The sink drops this ring before the queue can be restarted.
        let mut state = self.vring.get_mut();
        if !state.get_queue().ready() {
            return Sent::None;
        }
        let Some(chain) = next_chain(&mut state, &self.memory, EVENT_QUEUE, &self.stats) else {
            return Sent::None;
        };
        let head = chain.head_index();
        let memory = self.memory.memory();
        let (fits, written) = match chain.clone().writer(&memory) {
            Ok(mut writer) => {
                let event = event(writer.available_bytes());
                let written = writer.write_all(&event).map_or(0, |()| event.len() as u32);
                (!event.is_empty(), written)
            }
            Err(_) => {
                event(0);
                (false, 0)
            }
        };
        add_used(&mut state, &memory, head, written);
        match fits {
            true => Sent::Filled,
            false => Sent::Short(descriptor(&chain)),
        }
    }

    fn signal(&mut self) -> bool {
        let mut state = self.vring.get_mut();
        state.get_queue().ready() && signal(&self.vring, &mut state, &self.memory)
    }

    fn await_buffers(&mut self) -> bool {
        await_chains(&self.vring, &self.memory)
    }
}
