//! Interrupt queue: MSI-X messages to the guest.

use std::sync::Arc;

use parking_lot::Mutex;
use vhost_user_backend::VringT;
use zerocopy::IntoBytes;

use crate::msix::{Delivery, InterruptLines, MsixMessage};

use super::message::{Header, INTERRUPT_QUEUE, MsiMessage, OP_MSI};
use super::queue::{needs_notification, next_chain, return_chain};
use super::stats::{Finding, VhostUserPciStats};
use vhost_daemon::GuardedRam;
use vhost_daemon::vring::{Memory, Vring};

/// Interrupts of one connection. The driver posts a few buffers and reposts each when it has read it; without a buffer,
/// an interrupt stays pending in the function, and is sent when the driver kicks the queue.
pub struct InterruptQueue {
    vring: Vring,
    memory: Memory,
    /// Kept as long as the memory is in use.
    _ram: Arc<Mutex<GuardedRam>>,
    stats: Arc<VhostUserPciStats>,
}

impl InterruptQueue {
    /// Creates the interrupt queue of a vring.
    pub fn new(vring: Vring, memory: Memory, ram: Arc<Mutex<GuardedRam>>, stats: Arc<VhostUserPciStats>) -> Self {
        Self {
            vring,
            memory,
            _ram: ram,
            stats,
        }
    }

    /// Writes a message into the next buffer that can hold it. Returns false if there is none.
    fn send(&self, message: &MsiMessage) -> bool {
        let stats = &self.stats;
        while let Some(chain) = next_chain(&self.vring, &self.memory, INTERRUPT_QUEUE, &self.stats) {
            if !chain.is_sound() {
                stats.report(
                    Finding::BadChain,
                    INTERRUPT_QUEUE,
                    &chain.head().to_be_bytes(),
                    "an interrupt buffer whose descriptors loop, break off or point nowhere",
                );
            } else if chain.writable() < size_of::<MsiMessage>() {
                let what = "an interrupt buffer that is too small";
                stats.report(Finding::ShortBuffer, INTERRUPT_QUEUE, &chain.head().to_be_bytes(), what);
            } else {
                let written = chain.write(message.as_bytes());
                return_chain(&self.vring, chain, written);
                return true;
            }
            return_chain(&self.vring, chain, 0);
        }
        false
    }
}

impl InterruptLines for InterruptQueue {
    fn deliver(&self, _vector: u16, message: MsixMessage) -> Delivery {
        let header = Header {
            op: OP_MSI,
            size: 4,
            addr: message.address,
            ..Header::default()
        };
        let data = message.data.to_le_bytes();
        if !self.send(&MsiMessage { header, data }) {
            self.stats.counters.interrupts_deferred.increment();
            return Delivery::NotNow;
        }
        self.stats.counters.interrupts.increment();
        if needs_notification(&self.vring, &self.memory) {
            // Fails only for lack of memory.
            let _ = self.vring.signal_used_queue();
        }
        Delivery::Done
    }
}
