//! Work queue entries (`include/linux/mlx5/qp.h`).

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the unit in which a send queue is counted (`MLX5_SEND_WQE_BB`).
pub const SEND_WQE_BB: usize = 64;
/// Bytes of the unit in which the size of a WQE is given (`MLX5_SEND_WQE_DS`).
pub const SEND_WQE_DS: usize = 16;
/// The key that ends a list of data segments (`MLX5_INVALID_LKEY`).
pub const INVALID_LKEY: u32 = 0x100;

/// What every send WQE begins with (`struct mlx5_wqe_ctrl_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControlSegment {
    /// Modifier, index and opcode.
    pub opmod_idx_opcode: U32,
    /// Queue number, and size of the WQE in units of 16 bytes.
    pub qpn_ds: U32,
    /// Signature.
    pub signature: u8,
    reserved_09: [u8; 2],
    /// Fence, completion and solicited bits.
    pub fm_ce_se: u8,
    /// Immediate, key to invalidate, key to change, or TIS number.
    pub immediate: U32,
}
const _: () = assert!(size_of::<ControlSegment>() == 16);

impl ControlSegment {
    /// In `fm_ce_se`: write a completion.
    pub const CQ_UPDATE: u8 = 2 << 2;
    /// In `fm_ce_se`: the receiver's attention is wanted.
    pub const SOLICITED: u8 = 1 << 1;

    /// What to do; see [`WqeOpcode`].
    pub fn opcode(&self) -> u8 {
        self.opmod_idx_opcode.get() as u8
    }

    /// Which WQE of its queue, in units of [`SEND_WQE_BB`].
    pub fn index(&self) -> u16 {
        (self.opmod_idx_opcode.get() >> 8) as u16
    }

    /// Number of the queue.
    pub fn queue_number(&self) -> u32 {
        self.qpn_ds.get() >> 8
    }

    /// Size of the WQE in units of [`SEND_WQE_DS`].
    pub fn ds(&self) -> usize {
        (self.qpn_ds.get() & 0x3f) as usize
    }
}

macro_rules! wqe_opcodes {
    ($($opcode:ident = $number:literal, $name:literal;)*) => {
        /// Opcode of a send WQE.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "named as in the kernel, see `name`")]
        pub enum WqeOpcode {
            $($opcode = $number,)*
        }

        impl WqeOpcode {
            /// Every opcode in order of number.
            pub const ALL: &[Self] = &[$(Self::$opcode,)*];

            /// Returns the name after `MLX5_OPCODE_` (`device.h`).
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$opcode => $name,)*
                }
            }

            /// Returns the opcode of this number, if there is one.
            pub const fn new(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$opcode),)*
                    _ => None,
                }
            }
        }
    };
}

wqe_opcodes! {
    Nop = 0x00, "NOP";
    SendInvalidate = 0x01, "SEND_INVAL";
    RdmaWrite = 0x08, "RDMA_WRITE";
    RdmaWriteImmediate = 0x09, "RDMA_WRITE_IMM";
    Send = 0x0a, "SEND";
    SendImmediate = 0x0b, "SEND_IMM";
    Lso = 0x0e, "LSO";
    RdmaRead = 0x10, "RDMA_READ";
    AtomicCompareSwap = 0x11, "ATOMIC_CS";
    AtomicFetchAdd = 0x12, "ATOMIC_FA";
    AtomicMaskedCompareSwap = 0x14, "ATOMIC_MASKED_CS";
    AtomicMaskedFetchAdd = 0x15, "ATOMIC_MASKED_FA";
    Umr = 0x25, "UMR";
}

/// The Ethernet part of a send WQE (`struct mlx5_wqe_eth_seg`), up to the inline headers.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EthernetSegment {
    /// Software parser: offset of the outer layer-4 header.
    pub swp_outer_l4_offset: u8,
    /// Software parser: offset of the outer layer-3 header.
    pub swp_outer_l3_offset: u8,
    /// Software parser: offset of the inner layer-4 header.
    pub swp_inner_l4_offset: u8,
    /// Software parser: offset of the inner layer-3 header.
    pub swp_inner_l3_offset: u8,
    /// Which checksums to fill in.
    pub cs_flags: u8,
    /// Software parser: kinds of headers.
    pub swp_flags: u8,
    /// Bytes of payload per segment, or 0; low 14 bits.
    pub mss: U16,
    /// Metadata for flow tables.
    pub flow_table_metadata: U32,
    /// Bytes of headers in the WQE, low 10 bits; or, with [`EthernetSegment::INSERT_VLAN`], a VLAN tag to insert in front.
    pub inline_header_size: U16,
    /// The first bytes of the headers; or the VLAN tag to insert.
    pub inline_header_start: [u8; 2],
}
const _: () = assert!(size_of::<EthernetSegment>() == 16);

impl EthernetSegment {
    /// In `cs_flags`: fill in the checksum of the inner layer-3 header.
    pub const L3_INNER_CSUM: u8 = 1 << 4;
    /// In `cs_flags`: fill in the checksum of the inner layer-4 header.
    pub const L4_INNER_CSUM: u8 = 1 << 5;
    /// In `cs_flags`: fill in the checksum of the layer-3 header.
    pub const L3_CSUM: u8 = 1 << 6;
    /// In `cs_flags`: fill in the checksum of the layer-4 header.
    pub const L4_CSUM: u8 = 1 << 7;
    /// In `inline_header_size`: it is a VLAN tag.
    pub const INSERT_VLAN: u16 = 1 << 15;
    /// Offset of the inline headers in the segment.
    pub const INLINE_HEADER_START: usize = 14;
}

/// Names data in memory (`struct mlx5_wqe_data_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataSegment {
    /// Length in bytes; or, with [`DataSegment::INLINE`], that of the data that follows at once.
    pub byte_count: U32,
    /// The key of the memory.
    pub lkey: U32,
    /// The address, as the key counts it.
    pub address: U64,
}
const _: () = assert!(size_of::<DataSegment>() == 16);

impl DataSegment {
    /// In `byte_count`: the data is in the WQE.
    pub const INLINE: u32 = 1 << 31;
    /// In `byte_count`: the length of data in the WQE.
    pub const INLINE_LENGTH: u32 = 0x3ff;
}

/// What a WQE of a linked receive queue begins with (`struct mlx5_wqe_srq_next_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NextSegment {
    reserved_00: [u8; 2],
    /// Index of the next WQE.
    pub next_wqe_index: U16,
    /// Signature.
    pub signature: u8,
    reserved_05: [u8; 11],
}
const _: () = assert!(size_of::<NextSegment>() == 16);
