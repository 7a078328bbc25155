//! The command queue (`drivers/net/ethernet/mellanox/mlx5/core/cmd.c`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use mlx5_prm::command::{CommandEntry, InputHeader, Mailbox, OutputHeader, Status};
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::EventType;
use parking_lot::{Condvar, Mutex};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::event_ring::EventQueue;
use crate::machine::Machine;
use crate::memory::{Block, PAGE};
use crate::wait::PATIENCE;

/// The slot reserved for MANAGE_PAGES.
pub const PAGE_SLOT: u32 = 31;
/// All other slots.
const REGULAR_SLOTS: u32 = !(1 << PAGE_SLOT);
/// Registers of the initialization segment.
const CMDQ_ADDRESS_HIGH: u64 = 0x10;
const CMDQ_ADDRESS_LOW: u64 = 0x14;
const COMMAND_DOORBELL: u64 = 0x18;
/// `CMD_OWNER_HW` of `status_own`.
const OWNED_BY_HARDWARE: u8 = 1;

/// Failure of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// Delivery status (`MLX5_CMD_DELIVERY_STAT_*`): the command was not executed.
    Delivery(u8),
    /// Status (`MLX5_CMD_STAT_*`) and syndrome of a command that was refused.
    Refused(u8, u32),
    /// No completion in time.
    Timeout,
}

impl CommandError {
    /// Whether the command was refused with this status, and a syndrome.
    pub fn is(self, status: Status) -> bool {
        matches!(self, Self::Refused(refused, syndrome) if refused == status as u8 && syndrome != 0)
    }
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, CommandError>;

/// The command queue.
pub struct Commands {
    machine: Arc<Machine>,
    queue: Block,
    free: Mutex<u32>,
    freed: Condvar,
    token: AtomicU8,
    events: Mutex<Option<Events>>,
}

/// The event queue that reports command completions.
struct Events {
    queue: EventQueue,
    done: u32,
}

/// A command with its mailboxes, ready to be posted.
pub struct Prepared {
    /// Command queue entry.
    pub entry: CommandEntry,
    /// Mailboxes with the input after the first 16 bytes.
    pub input: Vec<Block>,
    /// Mailboxes for the output after the first 16 bytes.
    pub output: Vec<Block>,
}

impl Commands {
    /// Allocates the queue and writes its address to the initialization segment.
    pub fn new(machine: Arc<Machine>) -> Self {
        let sizes = machine.read(CMDQ_ADDRESS_LOW) & 0xff;
        let (log_size, log_stride) = (sizes >> 4, sizes & 0xf);
        assert!(
            1 << log_size == 32 && 1 << log_stride == size_of::<CommandEntry>(),
            "the driver requires 32 entries of 64 bytes (cmd.c)"
        );
        let queue = machine.memory.allocate(PAGE);
        machine.write(CMDQ_ADDRESS_HIGH, (queue.address() >> 32) as u32);
        machine.write(CMDQ_ADDRESS_LOW, queue.address() as u32);
        Self {
            machine,
            queue,
            free: Mutex::new(u32::MAX),
            freed: Condvar::new(),
            token: AtomicU8::new(1),
            events: Mutex::new(None),
        }
    }

    /// Switches to completion by the events of a queue, or, with `None`, to polling entries. Returns the queue used so
    /// far.
    pub fn use_events(&self, queue: Option<EventQueue>) -> Option<EventQueue> {
        let new = queue.map(|queue| Events { queue, done: 0 });
        std::mem::replace(&mut *self.events.lock(), new).map(|events| events.queue)
    }

    /// Executes a command without a list after its fields.
    pub fn call<I: Layout, O: Layout>(&self, opcode: Opcode, input: &I) -> Result<O> {
        self.call_with(opcode, 0, input, &[], 0).map(|(output, _)| output)
    }

    /// Executes a command with `op_mod`, a list after the fields of its input, and room for `room` bytes after those of
    /// the output.
    pub fn call_with<I: Layout, O: Layout>(
        &self,
        opcode: Opcode,
        op_mod: u16,
        input: &I,
        list: &[u8],
        room: usize,
    ) -> Result<(O, Vec<u8>)> {
        let mut bytes = input.as_bytes().to_vec();
        bytes[..2].copy_from_slice(&opcode.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&op_mod.to_be_bytes());
        bytes.extend_from_slice(list);
        let output = self.execute(&bytes, O::SIZE + room)?;
        let (fields, rest) = O::read_from_prefix(&output).unwrap();
        Ok((fields, rest.to_vec()))
    }

    /// Executes a command given by its bytes, from the opcode on.
    pub fn execute(&self, input: &[u8], output_length: usize) -> Result<Vec<u8>> {
        let opcode = InputHeader::read_from_prefix(input).map(|(header, _)| header.opcode.get());
        let slot = self.take_slot(if opcode == Ok(Opcode::MANAGE_PAGES.0) {
            1 << PAGE_SLOT
        } else {
            REGULAR_SLOTS
        });
        let prepared = self.prepare(input, output_length);
        self.post(slot, &prepared);
        self.ring(1 << slot);
        let result = self.finish(slot, &prepared);
        *self.free.lock() |= 1 << slot;
        self.freed.notify_one();
        result
    }

    fn take_slot(&self, among: u32) -> u32 {
        let mut free = self.free.lock();
        while *free & among == 0 {
            self.freed.wait(&mut free);
        }
        let slot = (*free & among).trailing_zeros();
        *free &= !(1 << slot);
        slot
    }

    /// Builds a command's entry and mailboxes.
    pub fn prepare(&self, input: &[u8], output_length: usize) -> Prepared {
        let token = self.token.fetch_add(1, Ordering::Relaxed);
        let mut entry = CommandEntry::default();
        (entry.kind, entry.token, entry.status_own) = (CommandEntry::PCI, token, OWNED_BY_HARDWARE);
        let (first, rest) = input.split_at(input.len().min(CommandEntry::INLINE));
        entry.input[..first.len()].copy_from_slice(first);
        entry.input_length.set(input.len() as u32);
        entry.output_length.set(output_length as u32);
        let output = vec![0; output_length.saturating_sub(CommandEntry::INLINE)];
        let (input, output) = (self.chain(rest, token), self.chain(&output, token));
        entry.input_mailbox.set(input.first().map_or(0, Block::address));
        entry.output_mailbox.set(output.first().map_or(0, Block::address));
        Prepared { entry, input, output }
    }

    fn chain(&self, data: &[u8], token: u8) -> Vec<Block> {
        let parts = data.chunks(Mailbox::DATA);
        let blocks: Vec<Block> = parts
            .clone()
            .map(|_| self.machine.memory.allocate(size_of::<Mailbox>() as u64))
            .collect();
        for (number, (part, block)) in parts.zip(&blocks).enumerate() {
            let mut mailbox = Mailbox::new_zeroed();
            mailbox.data[..part.len()].copy_from_slice(part);
            mailbox.next.set(blocks.get(number + 1).map_or(0, Block::address));
            mailbox.block_number.set(number as u32);
            mailbox.token = token;
            block.write(0, mailbox.as_bytes());
        }
        blocks
    }

    /// Writes a command to a slot.
    pub fn post(&self, slot: u32, command: &Prepared) {
        let offset = self.offset(slot);
        if let Some(events) = &mut *self.events.lock() {
            events.done &= !(1 << slot);
        }
        let bytes = command.entry.as_bytes();
        self.queue.write(offset, &bytes[..60]);
        self.queue
            .store(offset + 60, u32::from_be_bytes(*bytes[60..].first_chunk().unwrap()));
    }

    /// Rings the command doorbell, a bit for every slot.
    pub fn ring(&self, slots: u32) {
        self.machine.write(COMMAND_DOORBELL, slots);
    }

    /// Waits for the command in a slot. Returns its output.
    pub fn finish(&self, slot: u32, command: &Prepared) -> Result<Vec<u8>> {
        self.wait(slot)?;
        let entry = self.entry(slot);
        match entry.status_own >> 1 {
            0 => {}
            status => return Err(CommandError::Delivery(status)),
        }
        let length = command.entry.output_length.get() as usize;
        let mut output = entry.output[..length.min(CommandEntry::INLINE)].to_vec();
        for block in &command.output {
            output.extend(block.read(0, (length - output.len()).min(Mailbox::DATA)));
        }
        match OutputHeader::read_from_prefix(&output) {
            Ok((header, _)) if header.status != Status::Ok as u8 => {
                Err(CommandError::Refused(header.status, header.syndrome.get()))
            }
            _ => Ok(output),
        }
    }

    /// Reads the entry of a slot.
    pub fn entry(&self, slot: u32) -> CommandEntry {
        let bytes = self.queue.read(self.offset(slot), size_of::<CommandEntry>());
        CommandEntry::read_from_bytes(&bytes).unwrap()
    }

    fn wait(&self, slot: u32) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.is_done(slot) {
            if Instant::now() > end {
                return Err(CommandError::Timeout);
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    fn is_done(&self, slot: u32) -> bool {
        let in_memory = self.queue.load(self.offset(slot) + 60) as u8 & OWNED_BY_HARDWARE == 0;
        let mut events = self.events.lock();
        let Some(events) = &mut *events else {
            return in_memory;
        };
        while let Some(event) = events.queue.poll() {
            assert_eq!(
                event.event_type,
                EventType::Command as u8,
                "not a command completion event"
            );
            events.done |= u32::from_be_bytes(*event.data.first_chunk().unwrap());
            events.queue.update(true);
        }
        let done = events.done & 1 << slot != 0;
        assert!(!done || in_memory, "the event came before the entry was written");
        done
    }

    fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * size_of::<CommandEntry>() as u64
    }
}
