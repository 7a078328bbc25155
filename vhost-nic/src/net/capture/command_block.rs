//! Commands in a capture: a header, the input and the output.

use mlx5_prm::command::{InputHeader, OutputHeader};
use mlx5_prm::opcode::Opcode;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::net::tap::CommandRecord;

/// Bytes of an input or an output that are captured at most.
const MAX_PART: usize = 32 << 10;
/// Longest captured command, with its header.
pub(super) const MAX_BLOCK: usize = size_of::<CommandHeader>() + 2 * MAX_PART;

/// Header of a captured command; the captured parts of input and output follow. Link type `LINKTYPE_USER0`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandHeader {
    /// [`CommandHeader::VERSION`].
    pub version: u8,
    /// Delivery status (`MLX5_CMD_DELIVERY_STAT_*`).
    pub delivery: u8,
    reserved: U16,
    /// Bytes of the input.
    pub input_length: U32,
    /// Bytes of it that follow.
    pub input_captured: U32,
    /// Bytes of the output.
    pub output_length: U32,
    /// Bytes of it that follow the input.
    pub output_captured: U32,
    /// Time that the command took, in nanoseconds.
    pub duration_ns: U64,
}

const _: () = assert!(size_of::<CommandHeader>() == 28);

impl CommandHeader {
    /// Version of the format.
    pub const VERSION: u8 = 1;
}

/// Serializes a command.
pub(super) fn bytes(command: &CommandRecord<'_>) -> Vec<u8> {
    let input = &command.input[..command.input.len().min(MAX_PART)];
    let output = &command.output[..command.output.len().min(MAX_PART)];
    let header = CommandHeader {
        version: CommandHeader::VERSION,
        delivery: command.delivery,
        reserved: U16::ZERO,
        input_length: (command.input.len() as u32).into(),
        input_captured: (input.len() as u32).into(),
        output_length: (command.output.len() as u32).into(),
        output_captured: (output.len() as u32).into(),
        duration_ns: (command.duration.as_nanos() as u64).into(),
    };
    [header.as_bytes(), input, output].concat()
}

/// Length of a command that is captured as a whole.
pub(super) fn length(command: &CommandRecord<'_>) -> usize {
    size_of::<CommandHeader>() + command.input.len() + command.output.len()
}

/// Returns the comment of a command of a guest: name, variant, status, syndrome and duration.
pub(super) fn comment(guest: &str, command: &CommandRecord<'_>) -> String {
    let (input, _) = InputHeader::read_from_prefix(command.input).unwrap_or_default();
    let (output, _) = OutputHeader::read_from_prefix(command.output).unwrap_or_default();
    let outcome = match command.delivery {
        0 => format!("status {:#x}, syndrome {:#x}", output.status, output.syndrome),
        delivery => format!("delivery status {delivery:#x}"),
    };
    format!(
        "{guest}: {}, op_mod {:#x}, {outcome}, {} ns",
        Opcode(input.opcode.get()),
        input.op_mod,
        command.duration.as_nanos()
    )
}
