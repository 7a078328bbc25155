//! The interrupt queue: MSI-X messages to the guest.

use std::sync::Arc;

use vhost_user_backend::VringT;
use zerocopy::IntoBytes;

use crate::pci::{Delivery, InterruptLines, MsixMessage};

use super::message::{Header, MsiMessage, OP_MSI};
use super::queue::{next_chain, return_chain};
use super::stats::{GuestError, VhostUserPciStats};
use vhost_daemon::vring::{Memory, Vring};

/// Sends interrupts of one connection. The driver gives a few buffers and gives each again when it has read it, so an
/// interrupt may have to wait: it stays pending in the function, and is sent when the driver kicks the queue.
pub struct InterruptQueue {
    vring: Vring,
    memory: Memory,
    stats: Arc<VhostUserPciStats>,
}

impl InterruptQueue {
    /// Interrupts into this vring.
    pub fn new(vring: Vring, memory: Memory, stats: Arc<VhostUserPciStats>) -> Self {
        Self { vring, memory, stats }
    }

    /// Puts a message into the next buffer that can hold it. Whether there was one.
    fn send(&self, message: &MsiMessage) -> bool {
        while let Some(chain) = next_chain(&self.vring, &self.memory, &self.stats) {
            if !chain.is_sound() {
                self.stats.report(
                    GuestError::BadChain,
                    "an interrupt buffer whose descriptors loop, break off or point nowhere",
                );
            } else if chain.writable() < size_of::<MsiMessage>() {
                self.stats
                    .report(GuestError::ShortBuffer, "an interrupt buffer that is too small");
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
        if self.vring.needs_notification().unwrap_or(true) {
            // Nobody is there to be called any more, at worst.
            let _ = self.vring.signal_used_queue();
        }
        Delivery::Done
    }
}
