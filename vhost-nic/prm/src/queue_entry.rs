//! Entries of completion and event queues (`struct mlx5_cqe64`, `struct mlx5_err_cqe`, `struct mlx5_eqe`, `device.h`;
//! `cq.h`).

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned};

/// Completion queue entry.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Cqe {
    reserved_00: [u8; 2],
    /// WQE index of a striding RQ.
    pub wqe_id: U16,
    reserved_04: [u8; 8],
    /// Receive hash.
    pub rss_hash_result: U32,
    /// Headers covered by the receive hash.
    pub rss_hash_type: u8,
    /// Path bits.
    pub ml_path: u8,
    reserved_12: [u8; 2],
    /// One's complement sum of the bytes behind the Ethernet header.
    pub check_sum: U16,
    /// Source LID.
    pub slid: U16,
    /// GRH, service level or RoCE layer-3 type, and source QP.
    pub flags_rqpn: U32,
    /// Header checksums that are correct; see [`Cqe::L3_OK`].
    pub hds_ip_ext: u8,
    /// Types of the L3 and L4 headers; bit 0: the VLAN tag was stripped.
    pub l4_l3_hdr_type: u8,
    /// Stripped VLAN tag.
    pub vlan_info: U16,
    /// SRQ number or user index; low 24 bits.
    pub srqn_uidx: U32,
    /// Immediate, invalidated key, partition key or flow table metadata.
    pub immediate: U32,
    /// Application.
    pub app: u8,
    /// Application operation.
    pub app_op: u8,
    /// Application information.
    pub app_info: U16,
    /// Bytes received.
    pub byte_count: U32,
    /// Time of the completion by the device's clock.
    pub timestamp: U64,
    /// Opcode or flow tag, and queue number.
    pub sop_drop_qpn: U32,
    /// Index of the WQE.
    pub wqe_counter: U16,
    /// Checksum of the entry.
    pub signature: u8,
    /// Opcode, format, solicited bit and owner.
    pub op_own: u8,
}
const _: () = assert!(size_of::<Cqe>() == 64 && std::mem::offset_of!(Cqe, byte_count) == 44);
const _: () = assert!(std::mem::offset_of!(Cqe, flags_rqpn) == 24 && std::mem::offset_of!(Cqe, wqe_counter) == 60);

impl Cqe {
    /// Returns a CQE of this opcode, zero otherwise.
    pub fn new(opcode: CqeOpcode) -> Self {
        Self {
            op_own: (opcode as u8) << 4,
            ..Self::default()
        }
    }

    /// Bit of `hds_ip_ext`: the L3 checksum is correct.
    pub const L3_OK: u8 = 1 << 1;
    /// Bit of `hds_ip_ext`: the L4 checksum is correct.
    pub const L4_OK: u8 = 1 << 2;
    /// Bit of `op_own`: solicited event.
    pub const SOLICITED: u8 = 1 << 1;
    /// Format in `op_own`: bytes 0 to 31 are data (`MLX5_INLINE_SCATTER_32`).
    pub const INLINE_32: u8 = 1 << 2;
    /// Format in `op_own`: the 64 bytes before are data (`MLX5_INLINE_SCATTER_64`).
    pub const INLINE_64: u8 = 2 << 2;
    /// Format in `op_own`: title of a compressed session, whose byte count is the number of its mini CQEs
    /// (`MLX5_COMPRESSED`).
    pub const COMPRESSED: u8 = 3 << 2;
    /// Bits of the format in `op_own`.
    pub const FORMAT: u8 = 3 << 2;
    /// Bit of `op_own`: owner, changes with every lap of the ring.
    pub const OWNER: u8 = 1;
}

/// Completion of a compressed session (`struct mlx5_mini_cqe8`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MiniCqe {
    /// Receive hash, or the checksum and a stride index, by `mini_cqe_res_format`.
    pub result: [u8; 4],
    /// Bytes received.
    pub byte_count: U32,
}
const _: () = assert!(size_of::<MiniCqe>() == 8 && std::mem::offset_of!(MiniCqe, byte_count) == 4);

impl MiniCqe {
    /// Mini CQEs in an entry of the CQ (`MLX5_MINI_CQE_ARRAY_SIZE`).
    pub const ARRAY: usize = size_of::<Cqe>() / size_of::<Self>();
}

/// Opcode of a CQE, bits 7:4 of `op_own` (`MLX5_CQE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named as in the kernel")]
pub enum CqeOpcode {
    Request = 0,
    ResponderWriteImmediate = 1,
    ResponderSend = 2,
    ResponderSendImmediate = 3,
    ResponderSendInvalidate = 4,
    ResizeCq = 5,
    SignatureError = 12,
    RequestError = 13,
    ResponderError = 14,
    Invalid = 15,
}

/// Error CQE; differs from a [`Cqe`] in bytes 32 to 63.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ErrorCqe {
    reserved_00: [u8; 32],
    /// SRQ number or user index; low 24 bits.
    pub srqn_uidx: U32,
    reserved_24: [u8; 18],
    /// Vendor syndrome.
    pub vendor_error_syndrome: u8,
    /// Syndrome; see [`Syndrome`].
    pub syndrome: u8,
    /// Opcode of the WQE, and queue number.
    pub s_wqe_opcode_qpn: U32,
    /// Index of the WQE.
    pub wqe_counter: U16,
    /// Checksum of the entry.
    pub signature: u8,
    /// Opcode, format, solicited bit and owner.
    pub op_own: u8,
}
const _: () = assert!(size_of::<ErrorCqe>() == 64 && std::mem::offset_of!(ErrorCqe, syndrome) == 55);

impl ErrorCqe {
    /// Returns an error CQE, zero otherwise.
    pub fn new(opcode: CqeOpcode, syndrome: Syndrome) -> Self {
        Self {
            syndrome: syndrome as u8,
            op_own: (opcode as u8) << 4,
            ..Self::default()
        }
    }
}

impl From<ErrorCqe> for Cqe {
    fn from(error: ErrorCqe) -> Self {
        zerocopy::transmute!(error)
    }
}

/// Syndrome of an error CQE (`MLX5_CQE_SYNDROME_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, TryFromBytes, Immutable, KnownLayout)]
#[repr(u8)]
#[expect(missing_docs, reason = "named as in the kernel")]
pub enum Syndrome {
    LocalLength = 0x01,
    LocalQpOperation = 0x02,
    LocalProtection = 0x04,
    WrFlush = 0x05,
    MwBind = 0x06,
    BadResponse = 0x10,
    LocalAccess = 0x11,
    RemoteInvalidRequest = 0x12,
    RemoteAccess = 0x13,
    RemoteOperation = 0x14,
    TransportRetryExceeded = 0x15,
    RnrRetryExceeded = 0x16,
    RemoteAborted = 0x22,
}

/// Event queue entry.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Eqe {
    reserved_00: u8,
    /// Type; see [`EventType`].
    pub event_type: u8,
    reserved_02: u8,
    /// Subtype.
    pub sub_type: u8,
    reserved_04: [u8; 28],
    /// Data, whose layout depends on the type.
    pub data: [u8; 28],
    reserved_3c: U16,
    /// Checksum of the entry.
    pub signature: u8,
    /// Owner bit, changes with every lap of the ring.
    pub owner: u8,
}
const _: () = assert!(size_of::<Eqe>() == 64 && std::mem::offset_of!(Eqe, data) == 32);

impl Eqe {
    /// Returns an event, zero otherwise.
    pub fn new(event_type: EventType, sub_type: u8) -> Self {
        Self {
            event_type: event_type as u8,
            sub_type,
            ..Self::default()
        }
    }
}

/// Type of an event (`enum mlx5_event`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, TryFromBytes, Immutable, KnownLayout)]
#[repr(u8)]
#[expect(missing_docs, reason = "named as in the kernel")]
pub enum EventType {
    Completion = 0x00,
    PathMigrated = 0x01,
    CommunicationEstablished = 0x02,
    SendQueueDrained = 0x03,
    CqError = 0x04,
    WqCatastrophicError = 0x05,
    PathMigrationFailed = 0x07,
    PortChange = 0x09,
    Command = 0x0a,
    PageRequest = 0x0b,
    WqInvalidRequestError = 0x10,
    WqAccessError = 0x11,
    SrqCatastrophicError = 0x12,
    SrqLastWqe = 0x13,
    SrqRqLimit = 0x14,
}

impl EventType {
    /// Returns the bit in an event queue's mask.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }
}
