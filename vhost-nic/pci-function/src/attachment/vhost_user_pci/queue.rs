//! Descriptor chains of the rings. The guest writes the rings: their contents are not trusted.

use std::io::{Read, Write};

use log::debug;
use vhost_user_backend::VringT;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT, Reader};
use vm_memory::{GuestAddressSpace, GuestMemoryLoadGuard, GuestMemoryMmap};

use super::stats::{Finding, VhostUserPciStats};
use vhost_daemon::vring::{Memory, Vring};

/// A chain of buffers that the driver made available.
pub struct Chain {
    chain: DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>,
    memory: GuestMemoryLoadGuard<GuestMemoryMmap>,
}

/// Takes the next available chain of a queue that is enabled and ready.
pub fn next_chain(vring: &Vring, memory: &Memory, number: u16, stats: &VhostUserPciStats) -> Option<Chain> {
    let mut state = vring.get_mut();
    if !state.is_enabled() || !state.get_queue().ready() {
        return None;
    }
    let memory = memory.memory();
    match state.get_queue_mut().iter(memory.clone()) {
        Ok(mut chains) => chains.next().map(|chain| Chain { chain, memory }),
        Err(error) => {
            debug!("{}: {error}", stats.guest());
            let next = state.get_queue().next_avail().to_be_bytes();
            stats.report(Finding::BadRing, number, &next, "a ring with impossible indices");
            state.get_queue_mut().set_ready(false);
            None
        }
    }
}

/// Returns a chain to the driver, with `written` bytes in its writable part.
pub fn return_chain(vring: &Vring, chain: Chain, written: usize) {
    // Fails only if the used ring is outside the guest's memory, or the head outside the table: such a guest gets no
    // answer.
    let head = chain.head();
    let _ = vring
        .get_mut()
        .get_queue_mut()
        .add_used(&*chain.memory, head, written as u32);
}

/// Returns whether the driver asks for a notification of used chains.
pub fn needs_notification(vring: &Vring, memory: &Memory) -> bool {
    let needed = vring.get_mut().get_queue_mut().needs_notification(&*memory.memory());
    needed.unwrap_or(true)
}

impl Chain {
    /// Index of the first descriptor.
    pub fn head(&self) -> u16 {
        self.chain.head_index()
    }

    /// Whether the chain ends, and all its descriptors and buffers are in guest memory.
    pub fn is_sound(&self) -> bool {
        let last = self.chain.clone().last();
        // The walk also stops at an invalid descriptor, and after as many as the table has.
        last.is_some_and(|last| !last.has_next()) && self.reader().is_some() && self.room().is_some()
    }

    fn reader(&self) -> Option<Reader<'_>> {
        self.chain.clone().reader(&self.memory).ok()
    }

    fn room(&self) -> Option<usize> {
        self.chain
            .clone()
            .writer(&self.memory)
            .ok()
            .map(|writer| writer.available_bytes())
    }

    /// Reads the readable bytes, at most `limit`.
    pub fn read(&self, limit: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(reader) = self.reader() {
            // Does not fail: the buffers have been checked.
            let _ = reader.take(limit as u64).read_to_end(&mut bytes);
        }
        bytes
    }

    /// Number of writable bytes.
    pub fn writable(&self) -> usize {
        self.room().unwrap_or(0)
    }

    /// Writes at the beginning of the writable part, clipped to its end. Returns the number of bytes written.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let length = bytes.len().min(self.writable());
        let writer = self.chain.clone().writer(&self.memory);
        match writer.map(|mut writer| writer.write_all(&bytes[..length])) {
            Ok(Ok(())) => length,
            _ => 0,
        }
    }
}
