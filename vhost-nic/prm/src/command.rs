//! Transport of commands: entries of the command queue (`struct mlx5_cmd_layout`) and mailboxes
//! (`struct mlx5_cmd_prot_block`, `include/linux/mlx5/device.h`).

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An entry of the command queue.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandEntry {
    /// Type of the entry, [`CommandEntry::PCI`].
    pub kind: u8,
    reserved_01: [u8; 3],
    /// Length of the input in bytes.
    pub input_length: U32,
    /// Guest address of the first input mailbox.
    pub input_mailbox: U64,
    /// First bytes of the input.
    pub input: [u8; 16],
    /// First bytes of the output.
    pub output: [u8; 16],
    /// Guest address of the first output mailbox.
    pub output_mailbox: U64,
    /// Length of the output in bytes.
    pub output_length: U32,
    /// Token, repeated in the mailboxes of the entry.
    pub token: u8,
    /// Checksum of the entry.
    pub signature: u8,
    reserved_3e: u8,
    /// Delivery status; bit 0: the hardware owns the entry.
    pub status_own: u8,
}
const _: () = assert!(size_of::<CommandEntry>() == 64 && std::mem::offset_of!(CommandEntry, status_own) == 63);

impl CommandEntry {
    /// The only type of entry.
    pub const PCI: u8 = 7;
    /// Bytes of input or output in the entry itself.
    pub const INLINE: usize = 16;
}

/// A mailbox: part of an input or output beyond the entry.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Mailbox {
    /// Part of the input or output.
    pub data: [u8; Self::DATA],
    reserved_200: [u8; 48],
    /// Guest address of the next mailbox.
    pub next: U64,
    /// Number of this mailbox in its chain, from 0.
    pub block_number: U32,
    reserved_23c: u8,
    /// Token of the entry.
    pub token: u8,
    /// Checksum of the fields behind the data.
    pub control_signature: u8,
    /// Checksum of the mailbox.
    pub signature: u8,
}
const _: () = assert!(size_of::<Mailbox>() == 576 && std::mem::offset_of!(Mailbox, next) == 560);

impl Mailbox {
    /// Bytes of data in a mailbox.
    pub const DATA: usize = 512;
}

/// Header of every input (`struct mlx5_inbox_hdr`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InputHeader {
    /// Opcode of the command.
    pub opcode: U16,
    /// User context (UCTX), or 0.
    pub uid: U16,
    reserved_04: U16,
    /// Variant of the command.
    pub op_mod: U16,
}

/// Header of every output (`struct mlx5_outbox_hdr`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct OutputHeader {
    /// Status; see [`Status`].
    pub status: u8,
    reserved_01: [u8; 3],
    /// Syndrome of a failure.
    pub syndrome: U32,
}

impl OutputHeader {
    /// Returns the header with this status and syndrome.
    pub fn new(status: Status, syndrome: u32) -> Self {
        Self {
            status: status as u8,
            syndrome: syndrome.into(),
            ..Self::default()
        }
    }
}

/// Status of a command (`MLX5_CMD_STAT_*`, `device.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named as in the kernel")]
pub enum Status {
    Ok = 0x0,
    InternalError = 0x1,
    BadOperation = 0x2,
    BadParameter = 0x3,
    BadSystemState = 0x4,
    BadResource = 0x5,
    ResourceBusy = 0x6,
    LimitExceeded = 0x8,
    BadResourceState = 0x9,
    BadIndex = 0xa,
    NoResources = 0xf,
    BadQpState = 0x10,
    BadPacket = 0x30,
    BadSizeOutstandingCqes = 0x40,
    BadInputLength = 0x50,
    BadOutputLength = 0x51,
}
