//! Command queue: reads commands from guest memory and writes their outputs back.

use std::cell::Cell;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use log::{debug, warn};
use mlx5_prm::command::{CommandEntry, Mailbox, Status};
use mlx5_prm::layout::Declaration;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::EventType;
use smallvec::SmallVec;
use zerocopy::{FromZeros, IntoBytes};

use super::Firmware;
use super::command::{Input, Refusal, Reply, refusal_bytes, unexecuted_bytes};
use super::door::Fate;
use super::reserved_bits;
use crate::dma::{Dma, DmaError, Purpose};
use crate::hca::eq::Eq;
use crate::hca::nic_event::NicEvent;
use crate::hca::nic_finding::{Finding, Findings, Object};
use crate::net::CommandRecord;

/// Log2 of the number of entries.
pub const LOG_CMDQ_SIZE: u8 = 5;
/// Log2 of the bytes of an entry.
pub const LOG_CMDQ_STRIDE: u8 = 6;
/// Largest input or output in bytes: the longest are page lists (`MLX5_MAX_RECLAIM_NPAGES`, `MLX5_MAX_MKEY_ENTRIES` of
/// the kernel) and memory keys of 2^16 entries.
const MAX_LENGTH: usize = 4 << 20;
/// Bit of `status_own`: the device owns the entry.
const OWNED_BY_HARDWARE: u8 = 1;

/// Delivery status of a command, bits 7:1 of `status_own` (`MLX5_CMD_DELIVERY_STAT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Delivery {
    Ok = 0x0,
    TokenError = 0x2,
    BlockNumber = 0x3,
    OutputPointer = 0x4,
    InputPointer = 0x5,
    InputLength = 0x7,
    CommandDescriptor = 0x10,
}

/// Input and output of a command, as far as there are any.
#[derive(Debug, Default)]
struct Exchange {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A command that could not be delivered: its delivery status, and the reason for the log.
#[derive(Debug)]
struct Undelivered(Delivery, String);

impl Undelivered {
    fn input(error: &DmaError) -> Self {
        Self(Delivery::InputPointer, error.to_string())
    }

    fn output(error: &DmaError) -> Self {
        Self(Delivery::OutputPointer, error.to_string())
    }
}

/// Executes the commands in the slots of `mask`, in order.
pub(super) fn run(firmware: &Firmware, queue: u64, mask: u32) {
    for slot in (0..32).filter(|slot| mask & 1 << slot != 0) {
        run_slot(firmware, queue.wrapping_add(slot << LOG_CMDQ_STRIDE), 1 << slot);
    }
}

fn run_slot(firmware: &Firmware, address: u64, bit: u32) {
    let hca = &firmware.hca;
    let dma = &*hca.dma;
    let slot = slot(bit);
    let mut entry = CommandEntry::default();
    if let Err(error) = dma.read(Purpose::CommandFetch, address, entry.as_mut_bytes()) {
        let text = format_args!("a command entry cannot be read: {error}");
        hca.findings
            .report(Finding::CommandUnreadable, slot, &address.to_be_bytes(), text);
        hca.findings.report_dma(slot, &error);
        return;
    }
    if entry.status_own & OWNED_BY_HARDWARE == 0 {
        let text = format_args!("command slot {} is not owned by the device", slot.number);
        hca.findings
            .report(Finding::CommandUnreadable, slot, entry.as_bytes(), text);
        return;
    }
    firmware.commands.increment();
    let fate = firmware.fate(&entry);
    if fate == (Fate::Lost { executed: false }) {
        return;
    }
    // The command that creates the EQ for command events is not reported there: the driver does not expect it yet.
    let listeners = hca.eqs.listeners(EventType::Command);
    let tap = firmware.tap();
    let begun = (hca.tracer.is_on() || tap.is_some()).then(Instant::now);
    let mut exchange = Exchange::default();
    let delivery = match deliver(firmware, dma, slot, &mut entry, fate, &mut exchange) {
        Ok(()) => Delivery::Ok,
        Err(Undelivered(delivery, reason)) => {
            let text = format_args!("a command cannot be delivered: {reason}");
            hca.findings
                .report(Finding::CommandUnreadable, slot, entry.as_bytes(), text);
            delivery
        }
    };
    if let Some(begun) = begun {
        let duration = begun.elapsed();
        hca.tracer
            .record(NicEvent::Command, 0, || traced(&entry, delivery, duration));
        if let Some(tap) = tap {
            tap.command(&CommandRecord {
                delivery: delivery as u8,
                input: &exchange.input,
                output: &exchange.output,
                duration,
            });
        }
    }
    entry.status_own = (delivery as u8) << 1;
    let answer = Answer {
        dma: hca.dma.clone(),
        findings: hca.findings.clone(),
        listeners,
        address,
        bit,
        entry,
    };
    match fate {
        Fate::Lost { .. } => {}
        Fate::Late(delay) => answer_later(firmware, delay, answer),
        _ => answer.give(),
    }
}

/// The slot of a bit of the doorbell, as an object.
fn slot(bit: u32) -> Object {
    Object::new("command_slot", bit.trailing_zeros().into())
}

/// The answer of an executed command.
struct Answer {
    dma: Arc<Dma>,
    findings: Arc<Findings>,
    listeners: SmallVec<[Arc<Eq>; 4]>,
    address: u64,
    bit: u32,
    entry: CommandEntry,
}

impl Answer {
    /// Writes the entry from the output on, its last four bytes last, as they pass the ownership; then posts the event.
    fn give(&self) {
        let output = offset_of!(CommandEntry, output);
        let bytes = self.entry.as_bytes();
        let written = bytes.split_last_chunk::<4>().map(|(body, last)| {
            let end = self.address.wrapping_add(body.len() as u64);
            let output_address = self.address.wrapping_add(output as u64);
            self.dma
                .write(Purpose::CommandReply, output_address, &body[output..])
                .and_then(|()| self.dma.store(Purpose::CommandReply, end, u32::from_ne_bytes(*last)))
        });
        if let Some(Err(error)) = written {
            let slot = slot(self.bit);
            let text = format_args!("the output of a command cannot be written: {error}");
            self.findings
                .report(Finding::CommandUnreadable, slot, &self.address.to_be_bytes(), text);
            self.findings.report_dma(slot, &error);
            return;
        }
        for eq in &self.listeners {
            eq.post(EventType::Command, 0, &self.bit.to_be_bytes());
        }
    }
}

/// Answers after a delay, unless the function is reset meanwhile.
fn answer_later(firmware: &Firmware, delay: Duration, answer: Answer) {
    let Some(door) = &firmware.door else { return };
    let (running, resets) = (firmware.running.clone(), firmware.resets.clone());
    let then = resets.load(Ordering::Relaxed);
    door.later(
        delay,
        Box::new(move || {
            let _one_at_a_time = running.lock();
            if resets.load(Ordering::Relaxed) == then {
                answer.give();
            }
        }),
    );
}

impl Firmware {
    /// Asks the door what becomes of a command.
    fn fate(&self, entry: &CommandEntry) -> Fate {
        let [high, low, ..] = entry.input;
        let opcode = Opcode(u16::from_be_bytes([high, low]));
        self.door.as_ref().map_or(Fate::Answered, |door| door.command(opcode))
    }
}

/// Arguments of [`NicEvent::Command`]. Every input begins with the opcode, every output with status and syndrome.
fn traced(entry: &CommandEntry, delivery: Delivery, duration: Duration) -> [u32; 4] {
    let [high, low, ..] = entry.input;
    let [status, _, _, _, a, b, c, d, ..] = entry.output;
    [
        u16::from_be_bytes([high, low]).into(),
        u32::from(delivery as u8) << 8 | u32::from(status),
        u32::from_be_bytes([a, b, c, d]),
        u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX),
    ]
}

/// Reads the input, executes the command, and writes the output except for the part in the entry itself.
fn deliver(
    firmware: &Firmware,
    dma: &Dma,
    slot: Object,
    entry: &mut CommandEntry,
    fate: Fate,
    exchange: &mut Exchange,
) -> Result<(), Undelivered> {
    if entry.kind != CommandEntry::PCI {
        return Err(Undelivered(
            Delivery::CommandDescriptor,
            format!("entry of type {:#x}", entry.kind),
        ));
    }
    let input_length = entry.input_length.get() as usize;
    let output_length = entry.output_length.get() as usize;
    if input_length > MAX_LENGTH || output_length > MAX_LENGTH {
        let reason = format!("input of {input_length} or output of {output_length} bytes is too long");
        return Err(Undelivered(Delivery::InputLength, reason));
    }
    exchange.input = read_input(dma, entry, input_length)?;
    let layout = Cell::default();
    let Some(input) = Input::new(&exchange.input, &layout) else {
        return Err(Undelivered(
            Delivery::InputLength,
            format!("input of {input_length} bytes is too short"),
        ));
    };
    let answer = match fate {
        Fate::Refused { status, syndrome } => Err(unexecuted_bytes(status, syndrome)),
        _ => execute(firmware, input, output_length).map_err(|refusal| refused(firmware, slot, input, refusal)),
    };
    if let Some(layout) = layout.get() {
        check_reserved(firmware, slot, input, &layout);
    }
    let (mut output, layouts) = match answer {
        Ok(Reply {
            bytes, layout, union, ..
        }) => (bytes, Vec::from_iter([(0, layout)].into_iter().chain(union))),
        Err(refusal) => (refusal, Vec::new()),
    };
    if let Fate::Reserved { seed } = fate {
        reserved_bits::fill(&mut output, &layouts, &mut Rng::with_seed(seed));
    }
    output.truncate(output_length);
    exchange.output = output;
    let output = &exchange.output;
    let (first, rest) = output.split_at(output.len().min(CommandEntry::INLINE));
    entry.output = [0; CommandEntry::INLINE];
    entry.output[..first.len()].copy_from_slice(first);
    write_output(dma, entry, rest)
}

/// Reports a refusal, and returns its output.
fn refused(firmware: &Firmware, slot: Object, input: Input<'_>, refusal: Refusal) -> Vec<u8> {
    let kind = match refusal.status {
        Status::BadOperation => Finding::UnknownCommand,
        _ => Finding::CommandRefused,
    };
    firmware.refused.fetch_add(1, Ordering::Relaxed);
    if refusal.status == Status::LimitExceeded {
        firmware.over_quota.fetch_add(1, Ordering::Relaxed);
    }
    let (opcode, Refusal { reason, status, .. }) = (input.opcode(), refusal);
    let text = format_args!("{opcode} is refused: {reason} ({status:?})");
    firmware.hca.findings.report(kind, slot, input.bytes(), text);
    refusal_bytes(input.opcode(), refusal)
}

/// Reports reserved bits that are set, once per opcode.
fn check_reserved(firmware: &Firmware, slot: Object, input: Input<'_>, layout: &Declaration) {
    let Some(bit) = reserved_bits::first_set(input.bytes(), layout) else {
        return;
    };
    let opcode = input.opcode();
    if firmware.with_reserved_bits.lock().insert(opcode.0) {
        let text = format_args!("{opcode}: reserved bit {bit:#x} is set");
        let findings = &firmware.hca.findings;
        findings.report(Finding::ReservedBits, slot, input.bytes(), text);
    }
}

fn execute(firmware: &Firmware, input: Input<'_>, output_length: usize) -> Result<Reply, Refusal> {
    let handler = firmware.handler(input.opcode()).ok_or_else(|| {
        if firmware.first_of_unknown(input.opcode()) {
            warn!(
                "the guest's driver sent {} (op_mod {:#x}), which this device does not support",
                input.opcode(),
                input.op_mod()
            );
        }
        Refusal::new(Status::BadOperation, "there is no such command")
    })?;
    let reply = handler(firmware, input)?;
    if output_length < reply.fixed {
        return Err(Refusal::new(Status::BadOutputLength, "the output does not fit"));
    }
    debug!("{} op_mod {:#x}: OK", input.opcode(), input.op_mod());
    Ok(reply)
}

fn read_input(dma: &Dma, entry: &CommandEntry, length: usize) -> Result<Vec<u8>, Undelivered> {
    let mut input = Vec::with_capacity(length);
    input.extend_from_slice(&entry.input[..length.min(CommandEntry::INLINE)]);
    let mut next = entry.input_mailbox.get();
    // A chain can loop only until the length is reached.
    for number in 0.. {
        let missing = length - input.len();
        if missing == 0 {
            break;
        }
        let mailbox = read_mailbox(dma, next).map_err(|error| Undelivered::input(&error))?;
        check(&mailbox, number, entry.token)?;
        input.extend_from_slice(&mailbox.data[..missing.min(Mailbox::DATA)]);
        next = mailbox.next.get();
    }
    Ok(input)
}

fn write_output(dma: &Dma, entry: &CommandEntry, output: &[u8]) -> Result<(), Undelivered> {
    let mut next = entry.output_mailbox.get();
    for (number, part) in (0..).zip(output.chunks(Mailbox::DATA)) {
        let mailbox = read_mailbox(dma, next).map_err(|error| Undelivered::output(&error))?;
        check(&mailbox, number, entry.token)?;
        dma.write(Purpose::CommandReply, next, part)
            .map_err(|error| Undelivered::output(&error))?;
        next = mailbox.next.get();
    }
    Ok(())
}

fn read_mailbox(dma: &Dma, address: u64) -> Result<Mailbox, DmaError> {
    let mut mailbox = Mailbox::new_zeroed();
    dma.read(Purpose::CommandFetch, address, mailbox.as_mut_bytes())?;
    Ok(mailbox)
}

fn check(mailbox: &Mailbox, number: u32, token: u8) -> Result<(), Undelivered> {
    if mailbox.token != token {
        return Err(Undelivered(
            Delivery::TokenError,
            format!("mailbox {number} has the token of another command"),
        ));
    }
    if mailbox.block_number.get() != number {
        let reason = format!("mailbox {number} has block number {}", mailbox.block_number.get());
        return Err(Undelivered(Delivery::BlockNumber, reason));
    }
    Ok(())
}
