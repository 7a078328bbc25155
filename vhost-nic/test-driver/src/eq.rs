//! Event queues (`core/eq.c`).

use std::sync::Arc;

use mlx5_prm::eq::{CreateEqIn, CreateEqOut, DestroyEqIn, DestroyEqOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::Eqe;
use zerocopy::FromBytes;

use crate::buffer::Buffer;
use crate::command::{Commands, Result};
use crate::machine::Machine;

/// EQ registers of a UAR page: consumer index, with and without arming.
const EQ_ARM: u64 = 0x40;
const EQ_UPDATE: u64 = 0x48;
/// Bytes of an entry.
const ENTRY: u64 = size_of::<Eqe>() as u64;

/// An event queue.
pub struct EventQueue {
    /// EQ number.
    pub number: u8,
    /// MSI-X vector.
    pub vector: u16,
    machine: Arc<Machine>,
    buffer: Buffer,
    log_size: u8,
    consumer: u32,
    uar: u32,
}

impl EventQueue {
    /// Creates a queue for the event types in `mask`.
    pub fn create(
        machine: &Arc<Machine>,
        commands: &Commands,
        uar: u32,
        vector: u16,
        log_size: u8,
        mask: u64,
    ) -> Result<Self> {
        let buffer = Buffer::new(&machine.memory, ENTRY << log_size);
        for index in 0..1 << log_size {
            // Initial owner bit: the entry is the device's until first written.
            buffer.write(index * ENTRY + ENTRY - 1, &[1]);
        }
        let mut input = CreateEqIn::default();
        input.event_bitmask_mut()[..8].copy_from_slice(&mask.to_be_bytes());
        let context = input.eq_context_entry_mut();
        context.set_log_eq_size(log_size);
        context.set_uar_page(uar);
        context.set_intr(vector);
        let (output, _): (CreateEqOut, _) = commands.call_with(Opcode::CREATE_EQ, 0, &input, &buffer.page_list(), 0)?;
        let number = output.eq_number();
        Ok(Self {
            number,
            vector,
            machine: Arc::clone(machine),
            buffer,
            log_size,
            consumer: 0,
            uar,
        })
    }

    /// Destroys the queue in the device.
    pub fn destroy(&self, commands: &Commands) -> Result<()> {
        let mut input = DestroyEqIn::default();
        input.set_eq_number(self.number);
        commands.call::<_, DestroyEqOut>(Opcode::DESTROY_EQ, &input).map(drop)
    }

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
