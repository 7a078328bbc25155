//! The ring of an event queue and its UAR registers.

use std::sync::Arc;

use mlx5_prm::queue_entry::Eqe;
use zerocopy::FromBytes;

use crate::buffer::Buffer;
use crate::machine::Machine;

/// EQ registers of a UAR page: consumer index, with and without arming.
const EQ_ARM: u64 = 0x40;
const EQ_UPDATE: u64 = 0x48;
/// Bytes of an entry.
pub(crate) const ENTRY: u64 = size_of::<Eqe>() as u64;

/// An event queue.
pub struct EventQueue {
    /// EQ number.
    pub number: u8,
    /// MSI-X vector.
    pub vector: u16,
    pub(crate) machine: Arc<Machine>,
    pub(crate) buffer: Buffer,
    pub(crate) log_size: u8,
    pub(crate) consumer: u32,
    pub(crate) uar: u32,
}

impl EventQueue {
    /// Consumes the next event, if there is one.
    pub fn poll(&mut self) -> Option<Eqe> {
        let offset = u64::from(self.consumer) % (1 << self.log_size) * ENTRY;
        let owner = self.buffer.load(offset + ENTRY - 4) as u8 & 1;
        if u32::from(owner) != self.consumer >> self.log_size & 1 {
            return None;
        }
        self.consumer += 1;
        Some(Eqe::read_from_bytes(&self.buffer.read(offset, ENTRY as usize)).unwrap())
    }

    /// Writes the consumer index; with `arm`, requests an interrupt for the next event.
    pub fn update(&self, arm: bool) {
        let register = if arm { EQ_ARM } else { EQ_UPDATE };
        let value = u32::from(self.number) << 24 | self.consumer & 0xff_ffff;
        self.machine.write(u64::from(self.uar) * 4096 + register, value);
    }
}
