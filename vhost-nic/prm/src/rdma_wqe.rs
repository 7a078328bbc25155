//! Segments of send WQEs for RDMA and UMR (`include/linux/mlx5/qp.h`).

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Remote address segment (`struct mlx5_wqe_raddr_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RemoteAddressSegment {
    /// Remote address, in the address space of the key.
    pub raddr: U64,
    /// Remote key.
    pub rkey: U32,
    reserved_0c: [u8; 4],
}
const _: () = assert!(size_of::<RemoteAddressSegment>() == 16);

/// Operands of an atomic operation (`struct mlx5_wqe_atomic_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AtomicSegment {
    /// Swap or add operand.
    pub swap_add: U64,
    /// Compare operand.
    pub compare: U64,
}
const _: () = assert!(size_of::<AtomicSegment>() == 16);

/// Operands of a masked atomic operation (`struct mlx5_wqe_masked_atomic_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MaskedAtomicSegment {
    /// Swap or add operand.
    pub swap_add: U64,
    /// Compare operand.
    pub compare: U64,
    /// Bits to swap; for an addition, the last bit of each field.
    pub swap_add_mask: U64,
    /// Bits to compare.
    pub compare_mask: U64,
}
const _: () = assert!(size_of::<MaskedAtomicSegment>() == 32);

/// XRC segment: the SRQ of an XRC request (`struct mlx5_wqe_xrc_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct XrcSegment {
    /// Remote SRQ number.
    pub xrc_srqn: U32,
    reserved_04: [u8; 12],
}
const _: () = assert!(size_of::<XrcSegment>() == 16);

/// Address vector (`struct mlx5_av`), the datagram segment of a UD WQE (`struct mlx5_wqe_datagram_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AddressVector {
    /// Q_Key to send; with bit 31 set, that of the QP is used instead.
    pub qkey: U32,
    reserved_04: [u8; 4],
    /// Remote QP number and [`AddressVector::EXTENDED`].
    pub dqp_dct: U32,
    /// Static rate and service level.
    pub stat_rate_sl: u8,
    /// Force loopback, and the LMC bits of the source LID.
    pub fl_mlid: u8,
    /// UDP source port; on InfiniBand the remote LID.
    pub udp_sport: U16,
    reserved_10: [u8; 4],
    /// Remote MAC address.
    pub rmac: [u8; 6],
    /// Traffic class: DSCP and ECN.
    pub tclass: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// GRH bit, GID index and flow label.
    pub grh_gid_fl: U32,
    /// Remote GID.
    pub rgid: [u8; 16],
}
const _: () = assert!(size_of::<AddressVector>() == 48);

impl AddressVector {
    /// Bit of `dqp_dct`: the vector is 48 bytes long, not 16 (`MLX5_EXTENDED_UD_AV`, `device.h`).
    pub const EXTENDED: u32 = 1 << 31;
    /// Bit of `grh_gid_fl`: there is a GRH.
    pub const GRH: u32 = 1 << 30;

    /// Remote QP number (24 bits).
    pub fn remote_queue_number(&self) -> u32 {
        self.dqp_dct.get() & 0xff_ffff
    }

    /// Whether there is a GRH: remote GID, hop limit and flow label are valid.
    pub fn has_grh(&self) -> bool {
        self.grh_gid_fl.get() & Self::GRH != 0
    }

    /// Index of the source address in the GID table.
    pub fn source_gid_index(&self) -> u8 {
        (self.grh_gid_fl.get() >> 20) as u8
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        self.grh_gid_fl.get() & 0xf_ffff
    }

    /// Service level, 4 bits.
    pub fn service_level(&self) -> u8 {
        self.stat_rate_sl & 0xf
    }

    /// Priority of the VLAN tag on Ethernet: half the service level.
    pub fn ethernet_priority(&self) -> u8 {
        self.service_level() >> 1
    }

    /// Static rate, 4 bits.
    pub fn static_rate(&self) -> u8 {
        self.stat_rate_sl >> 4
    }
}

/// UMR control segment (`struct mlx5_wqe_umr_ctrl_seg`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UmrControlSegment {
    /// Flags: [`Self::CHECK_FREE`] and others.
    pub flags: u8,
    reserved_01: [u8; 3],
    /// Length of the translation list in octwords (16 bytes).
    pub xlt_octowords: U16,
    /// Offset in the translation list, bits 15:0; or length of the block signature format in octwords.
    pub xlt_offset: U16,
    /// Fields of the key to change; see [`mkey_mask`].
    pub mkey_mask: U64,
    /// Offset in the translation list, bits 47:16.
    pub xlt_offset_47_16: U32,
    reserved_14: [u8; 28],
}
const _: () = assert!(size_of::<UmrControlSegment>() == 48);

impl UmrControlSegment {
    /// Bit of `flags`: `xlt_offset` is valid (`MLX5_UMR_TRANSLATION_OFFSET_EN`, `device.h`).
    pub const TRANSLATION_OFFSET_EN: u8 = 1 << 4;
    /// Bit of `flags`: fail unless the key is free (`MLX5_UMR_CHECK_NOT_FREE`; `mlx5_ib/umr.c` sets it to enable a
    /// key).
    pub const CHECK_NOT_FREE: u8 = 1 << 5;
    /// Bit of `flags`: fail if the key is free (`MLX5_UMR_CHECK_FREE`; `mlx5_ib/umr.c` sets it to disable a key).
    pub const CHECK_FREE: u8 = 2 << 5;
    /// Bit of `flags`: the translation list is in the WQE (`MLX5_UMR_INLINE`).
    pub const INLINE: u8 = 1 << 7;

    /// Offset in the translation list in octwords; 0 without [`Self::TRANSLATION_OFFSET_EN`].
    pub fn translation_offset(&self) -> u64 {
        if self.flags & Self::TRANSLATION_OFFSET_EN == 0 {
            return 0;
        }
        u64::from(self.xlt_offset_47_16.get()) << 16 | u64::from(self.xlt_offset.get())
    }

    /// Length of the translation list in bytes.
    pub fn translation_length(&self) -> usize {
        usize::from(self.xlt_octowords.get()) * 16
    }
}

/// Bits of [`UmrControlSegment::mkey_mask`], one for each field of the key (`MLX5_MKEY_MASK_*`,
/// `include/linux/mlx5/device.h`).
#[expect(missing_docs, reason = "named as in the kernel")]
pub mod mkey_mask {
    pub const LEN: u64 = 1 << 0;
    pub const PAGE_SIZE: u64 = 1 << 1;
    pub const START_ADDR: u64 = 1 << 6;
    pub const PD: u64 = 1 << 7;
    pub const EN_RINVAL: u64 = 1 << 8;
    pub const EN_SIGERR: u64 = 1 << 9;
    pub const BSF_EN: u64 = 1 << 12;
    pub const KEY: u64 = 1 << 13;
    pub const QPN: u64 = 1 << 14;
    pub const LR: u64 = 1 << 17;
    pub const LW: u64 = 1 << 18;
    pub const RR: u64 = 1 << 19;
    pub const RW: u64 = 1 << 20;
    pub const A: u64 = 1 << 21;
    pub const SMALL_FENCE: u64 = 1 << 23;
    pub const RELAXED_ORDERING_WRITE: u64 = 1 << 25;
    pub const FREE: u64 = 1 << 29;
    pub const PAGE_SIZE_5: u64 = 1 << 42;
    pub const RELAXED_ORDERING_READ: u64 = 1 << 47;
}

/// KLM: translation entry that names a range of another key (`struct mlx5_klm`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Klm {
    /// Length in bytes.
    pub bcount: U32,
    /// Other key.
    pub key: U32,
    /// Address, in the address space of the other key.
    pub va: U64,
}
const _: () = assert!(size_of::<Klm>() == 16);

#[cfg(test)]
mod tests;
