//! The initialization segment at the start of BAR 0 (`struct mlx5_init_seg`, `struct health_buffer`, `device.h`).

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The initialization segment.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InitSegment {
    /// Minor and major firmware revision.
    pub fw_rev: U32,
    /// Revision of the command interface, and of the firmware, sub-minor.
    pub cmdif_rev_fw_sub: U32,
    reserved_008: [u8; 8],
    /// High half of the command queue's address.
    pub cmdq_addr_h: U32,
    /// Low half of the command queue's address; bits 9:8: interface state; bits 7:0: log size and log stride.
    pub cmdq_addr_l_sz: U32,
    /// Command doorbell, a bit per slot.
    pub cmd_dbell: U32,
    reserved_01c: [u8; 480],
    /// Bit 31: the firmware is initializing.
    pub initializing: U32,
    /// Health buffer.
    pub health: HealthBuffer,
    reserved_240: [u8; 0xdb8],
    /// Command timeout, as [`timeout`](Self::timeout); 0 for the driver's own.
    pub cmd_exec_to: U32,
    /// Timeout of the command queue's initialization, as [`timeout`](Self::timeout); 0 for the driver's own of both.
    pub cmd_q_init_to: U32,
    /// High half of the free-running clock.
    pub internal_timer_h: U32,
    /// Low half of the free-running clock.
    pub internal_timer_l: U32,
    reserved_1008: [u8; 8],
    /// Counter that advances while the firmware is alive; low 24 bits.
    pub health_counter: U32,
    reserved_1014: [u8; 0x2c],
    /// High half of the time of day.
    pub real_time_h: U32,
    /// Low half of the time of day.
    pub real_time_l: U32,
    reserved_1048: [u8; 0xfb8],
}
const _: () = assert!(size_of::<InitSegment>() == 0x2000);
const _: () = assert!(std::mem::offset_of!(InitSegment, initializing) == 0x1fc);
const _: () = assert!(std::mem::offset_of!(InitSegment, cmd_exec_to) == 0x1000 - 8);
const _: () = assert!(std::mem::offset_of!(InitSegment, health_counter) == 0x1010);
const _: () = assert!(std::mem::offset_of!(InitSegment, real_time_h) == 0x1040);

/// Health buffer: the error that the firmware reports.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HealthBuffer {
    /// Variables of the failed assertion.
    pub assert_var: [U32; 6],
    reserved_18: [u8; 8],
    /// Exit pointer of the failed assertion.
    pub assert_exit_ptr: U32,
    /// Caller of the failed assertion.
    pub assert_callra: U32,
    reserved_28: [u8; 4],
    /// Time of the error in seconds.
    pub time: U32,
    /// Firmware version.
    pub fw_ver: U32,
    /// Hardware id.
    pub hw_id: U32,
    /// Bit 7: the firmware requests a reset; bits 2:0: severity.
    pub rfr_severity: u8,
    reserved_39: [u8; 3],
    /// Index of the core.
    pub irisc_index: u8,
    /// Syndrome (`enum mlx5_health_syndr`, health.c); 0 for none.
    pub synd: u8,
    /// Extended syndrome.
    pub ext_synd: U16,
}
const _: () = assert!(size_of::<HealthBuffer>() == 64 && std::mem::offset_of!(HealthBuffer, synd) == 61);

impl HealthBuffer {
    /// Bit of `rfr_severity`: the firmware requests a reset.
    pub const REQUEST_FOR_RESET: u8 = 1 << 7;
}

impl InitSegment {
    /// Longest timeout in milliseconds: 20 bits (`tout_convert_iseg_to_ms`, core/lib/tout.c).
    pub const MAX_TIMEOUT: u32 = 0xf_ffff;

    /// A timeout in milliseconds, at most [`MAX_TIMEOUT`](Self::MAX_TIMEOUT). Bits 31:29, the unit, are 0.
    pub fn timeout(milliseconds: u128) -> U32 {
        U32::new(u32::try_from(milliseconds).map_or(Self::MAX_TIMEOUT, |time| time.min(Self::MAX_TIMEOUT)))
    }
}

impl Default for InitSegment {
    fn default() -> Self {
        Self::new_zeroed()
    }
}
