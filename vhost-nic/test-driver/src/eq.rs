//! Event queues (`core/eq.c`).

use std::sync::Arc;

use mlx5_prm::eq::{CreateEqIn, CreateEqOut, DestroyEqIn, DestroyEqOut};
use mlx5_prm::opcode::Opcode;

use crate::buffer::Buffer;
use crate::command::{Commands, Result};
use crate::event_ring::ENTRY;
use crate::machine::Machine;

pub use crate::event_ring::EventQueue;

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
}
