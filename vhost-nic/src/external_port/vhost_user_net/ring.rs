//! A virtqueue that is ready and enabled, under its lock.
//!
//! GET_VRING_BASE takes the lock to stop the queue: the memory of a driver that has reset its device is not written.

use std::sync::RwLockWriteGuard;
use std::sync::atomic::{Ordering, fence};

use log::debug;
use vhost_daemon::vring::{Memory, Vring};
use vhost_user_backend::{VringState, VringT};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Error, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryLoadGuard, GuestMemoryMmap};

/// A chain of descriptors.
pub type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// Length of `flags` and `idx` in front of a ring (virtio 1.2, sections 2.7.6 and 2.7.8).
const RING_HEADER: u64 = 4;
/// Length of `struct virtq_used_elem`.
const USED_ELEMENT: u64 = 8;

/// A virtqueue in use.
pub struct Ring<'a> {
    vring: &'a Vring,
    state: RwLockWriteGuard<'a, VringState<Memory>>,
    memory: GuestMemoryLoadGuard<GuestMemoryMmap>,
    /// Index of the used ring when the lock was taken.
    used_before: u16,
}

impl<'a> Ring<'a> {
    /// Locks a queue. `None` unless it is ready and enabled.
    pub fn lock(vring: &'a Vring, memory: &Memory) -> Option<Self> {
        let state = vring.get_mut();
        let used_before = state.get_queue().next_used();
        (state.get_queue().ready() && state.is_enabled()).then(|| Self {
            vring,
            state,
            memory: memory.memory(),
            used_before,
        })
    }

    /// Memory of the driver.
    pub fn memory(&self) -> &GuestMemoryLoadGuard<GuestMemoryMmap> {
        &self.memory
    }

    /// Takes the next available chain. `None` also if the ring makes no sense, after which it is not served until the
    /// device is started again.
    pub fn next(&mut self) -> Option<Chain> {
        let memory = self.memory.clone();
        let next = self.state.get_queue_mut().iter(memory).map(|mut chains| chains.next());
        next.unwrap_or_else(|error| {
            self.stop_for(&error);
            None
        })
    }

    /// Serves the queue no more.
    pub fn stop_for(&mut self, error: &Error) {
        debug!("a virtqueue is broken: {error}");
        self.state.get_queue_mut().set_ready(false);
    }

    /// Number of descriptors of the ring.
    pub fn size(&self) -> u16 {
        self.state.get_queue().size()
    }

    /// Position among the available chains.
    pub fn position(&self) -> u16 {
        self.state.get_queue().next_avail()
    }

    /// Leaves the chains from a position on available.
    pub fn put_back(&mut self, position: u16) {
        self.state.get_queue_mut().set_next_avail(position);
    }

    /// Puts chains on the used ring, each with the number of bytes written into it. The driver sees all of them at once
    /// or none (virtio 1.2, section 5.1.6.4: the buffers of a packet are used together).
    pub fn use_together(&mut self, chains: &[(u16, u32)]) {
        let Some(((last, length), others)) = chains.split_last() else {
            return;
        };
        if let Err(error) = self.write_used(others).and_then(|()| {
            let queue = self.state.get_queue_mut();
            queue.add_used(&*self.memory, *last, *length)
        }) {
            self.stop_for(&error);
        }
    }

    fn write_used(&mut self, chains: &[(u16, u32)]) -> Result<(), Error> {
        let queue = self.state.get_queue_mut();
        for (head, length) in chains {
            let next = queue.next_used();
            let at = RING_HEADER + USED_ELEMENT * u64::from(next % queue.size());
            let at = queue.used_ring().checked_add(at).ok_or(Error::AddressOverflow)?;
            let mut element = [0; USED_ELEMENT as usize];
            element[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
            element[4..].copy_from_slice(&length.to_le_bytes());
            self.memory
                .write_slice(&element, GuestAddress(at))
                .map_err(Error::GuestMemory)?;
            queue.set_next_used(next.wrapping_add(1));
        }
        Ok(())
    }

    /// Asks for no kick.
    pub fn silence(&mut self) {
        let _ = self.state.get_queue_mut().disable_notification(&*self.memory);
    }

    /// Asks for a kick at the next available chain. Returns whether there is one already.
    pub fn await_kick(&mut self) -> bool {
        let enabled = self.state.get_queue_mut().enable_notification(&*self.memory);
        enabled.unwrap_or(false)
    }

    /// Gives up the lock, and interrupts the driver if it is to know of chains that were used.
    pub fn finish(self) {
        if self.is_interrupt_due() {
            let _ = self.vring.signal_used_queue();
        }
    }

    /// Of several chains that are used together, virtio-queue counts the last only: the decision is made here.
    fn is_interrupt_due(&self) -> bool {
        let queue = self.state.get_queue();
        let (old, new) = (self.used_before, queue.next_used());
        if old == new {
            return false;
        }
        // The used ring is written before the driver's wish is read.
        fence(Ordering::SeqCst);
        let read = |offset: u64| {
            let at = queue.avail_ring().checked_add(offset)?;
            self.memory
                .load(GuestAddress(at), Ordering::Relaxed)
                .ok()
                .map(u16::from_le)
        };
        match queue.event_idx_enabled() {
            true => {
                let used_event = read(RING_HEADER + 2 * u64::from(queue.size()));
                // `vring_need_event`, `include/uapi/linux/virtio_ring.h`.
                used_event.is_none_or(|event| new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
            }
            false => read(0).is_none_or(|flags| u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0),
        }
    }
}
