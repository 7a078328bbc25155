//! Work queue entries (`include/linux/mlx5/qp.h`).

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a basic block, the unit of send queue indexes (`MLX5_SEND_WQE_BB`).
pub const SEND_WQE_BB: usize = 64;
/// Bytes of the unit of WQE sizes (`MLX5_SEND_WQE_DS`).
pub const SEND_WQE_DS: usize = 16;
/// Key that terminates a list of data segments (`MLX5_INVALID_LKEY`).
pub const INVALID_LKEY: u32 = 0x100;

/// Control segment: start of every send WQE (`struct mlx5_wqe_ctrl_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControlSegment {
    /// Opcode modifier, WQE index and opcode.
    pub opmod_idx_opcode: U32,
    /// Queue number, and size of the WQE in units of 16 bytes.
    pub qpn_ds: U32,
    /// Checksum of the WQE.
    pub signature: u8,
    reserved_09: [u8; 2],
    /// Fence, completion and solicited bits.
    pub fm_ce_se: u8,
    /// Immediate, key to invalidate, key to change, or TIS number.
    pub immediate: U32,
}
const _: () = assert!(size_of::<ControlSegment>() == 16);

impl ControlSegment {
    /// Bits of `fm_ce_se`: write a CQE.
    pub const CQ_UPDATE: u8 = 2 << 2;
    /// Bit of `fm_ce_se`: solicited event.
    pub const SOLICITED: u8 = 1 << 1;

    /// Opcode; see [`WqeOpcode`].
    pub fn opcode(&self) -> u8 {
        self.opmod_idx_opcode.get() as u8
    }

    /// Index of the WQE, in units of [`SEND_WQE_BB`].
    pub fn index(&self) -> u16 {
        (self.opmod_idx_opcode.get() >> 8) as u16
    }

    /// SQ or QP number (24 bits).
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

/// Ethernet segment, up to the inline headers (`struct mlx5_wqe_eth_seg`).
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
    /// Checksums to fill in.
    pub cs_flags: u8,
    /// Software parser: types of headers.
    pub swp_flags: u8,
    /// Payload bytes per TSO segment, or 0; low 14 bits.
    pub mss: U16,
    /// Metadata for flow tables.
    pub flow_table_metadata: U32,
    /// Bytes of headers in the WQE, low 10 bits; or, with [`EthernetSegment::INSERT_VLAN`], a VLAN tag to insert in
    /// front.
    pub inline_header_size: U16,
    /// First bytes of the headers; or the VLAN tag to insert.
    pub inline_header_start: [u8; 2],
}
const _: () = assert!(size_of::<EthernetSegment>() == 16);

impl EthernetSegment {
    /// Bit of `cs_flags`: fill in the inner L3 checksum.
    pub const L3_INNER_CSUM: u8 = 1 << 4;
    /// Bit of `cs_flags`: fill in the inner L4 checksum.
    pub const L4_INNER_CSUM: u8 = 1 << 5;
    /// Bit of `cs_flags`: fill in the L3 checksum.
    pub const L3_CSUM: u8 = 1 << 6;
    /// Bit of `cs_flags`: fill in the L4 checksum.
    pub const L4_CSUM: u8 = 1 << 7;
    /// Bit of `inline_header_size`: insert a VLAN tag.
    pub const INSERT_VLAN: u16 = 1 << 15;
    /// Offset of the inline headers in the segment.
    pub const INLINE_HEADER_START: usize = 14;
}

/// Data segment: a range of memory (`struct mlx5_wqe_data_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataSegment {
    /// Length in bytes; with [`DataSegment::INLINE`], that of the inline data that follows.
    pub byte_count: U32,
    /// Local key of the memory.
    pub lkey: U32,
    /// Address, in the address space of the key.
    pub address: U64,
}
const _: () = assert!(size_of::<DataSegment>() == 16);

impl DataSegment {
    /// Bit of `byte_count`: the data is in the WQE.
    pub const INLINE: u32 = 1 << 31;
    /// Mask of `byte_count`: length of inline data.
    pub const INLINE_LENGTH: u32 = 0x3ff;
}

/// Next segment: start of a WQE in a linked list (`struct mlx5_wqe_srq_next_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NextSegment {
    reserved_00: [u8; 2],
    /// Index of the next WQE.
    pub next_wqe_index: U16,
    /// Checksum of the WQE.
    pub signature: u8,
    reserved_05: [u8; 11],
}
const _: () = assert!(size_of::<NextSegment>() == 16);
