//! Registers of the receive buffers: those of the port, and the pools that ports share. Sizes are in cells.

use crate::layout::layout;

layout! {
    /// A receive buffer, in PBMC.
    pub struct BufferxReg: "bufferx_reg", 0x8 {
        lossy: bool = 0x6, 1;
        epsb: bool = 0x7, 1;
        size: u16 = 0x10, 16;
        xoff_threshold: u16 = 0x20, 16;
        xon_threshold: u16 = 0x30, 16;
    }
}

layout! {
    /// PBMC: port buffers; ten [`BufferxReg`], of which the last two are internal.
    pub struct PbmcReg: "pbmc_reg", 0x6c {
        local_port: u8 = 0x8, 8;
        xoff_timer_value: u16 = 0x20, 16;
        xoff_refresh: u16 = 0x30, 16;
        fullness_threshold: u8 = 0x49, 7;
        port_buffer_size: u16 = 0x50, 16;
        buffer: bytes(80) = 0x60;
        shared_headroom_pool: layout(BufferxReg) = 0x2e0;
    }
}

layout! {
    /// PPTB: buffer of each priority, four bits each from the least significant on.
    pub struct PptbReg: "pptb_reg", 0xc {
        mm: u8 = 0x2, 2;
        local_port: u8 = 0x8, 8;
        cm: bool = 0x16, 1;
        um: bool = 0x17, 1;
        pm: u8 = 0x18, 8;
        prio_x_buff: u32 = 0x20, 32;
        pm_msb: u8 = 0x40, 8;
        ctrl_buff: u8 = 0x58, 4;
        untagged_buff: u8 = 0x5c, 4;
    }
}

layout! {
    /// SBPR: shared buffer pool.
    pub struct SbprReg: "sbpr_reg", 0x18 {
        desc: bool = 0x0, 1;
        snap: bool = 0x1, 1;
        dir: u8 = 0x6, 2;
        pool: u8 = 0x1c, 4;
        infi_size: bool = 0x20, 1;
        size: u32 = 0x28, 24;
        mode: u8 = 0x5c, 4;
        buff_occupancy: u32 = 0x68, 24;
        clr: bool = 0x80, 1;
        max_buff_occupancy: u32 = 0x88, 24;
        ext_buff_occupancy: u32 = 0xa8, 24;
    }
}

layout! {
    /// SBCM: share of a port buffer in a pool.
    pub struct SbcmReg: "sbcm_reg", 0x28 {
        desc: bool = 0x0, 1;
        snap: bool = 0x1, 1;
        local_port: u8 = 0x8, 8;
        pnat: u8 = 0x10, 2;
        pg_buff: u8 = 0x12, 6;
        dir: u8 = 0x1e, 2;
        exc: bool = 0x3f, 1;
        buff_occupancy: u32 = 0x88, 24;
        clr: bool = 0xa0, 1;
        max_buff_occupancy: u32 = 0xa8, 24;
        min_buff: u32 = 0xc8, 24;
        infi_max: bool = 0xe0, 1;
        max_buff: u32 = 0xe8, 24;
        pool: u8 = 0x13c, 4;
    }
}

layout! {
    /// SBCAM: capabilities mask of shared buffers.
    pub struct SbcamReg: "sbcam_reg", 0x4c {
        feature_group: u8 = 0x8, 8;
        access_reg_group: u8 = 0x18, 8;
        sb_access_reg_cap_mask: bytes(16) = 0x40;
        sb_feature_cap_mask: bytes(16) = 0x140;
        cap_total_buffer_size: u32 = 0x200, 32;
        cap_cell_size: u16 = 0x220, 16;
        cap_max_pg_buffers: u8 = 0x230, 8;
        cap_num_pool_supported: u8 = 0x238, 8;
        cap_sbsr_stat_size: u8 = 0x248, 8;
        cap_max_tclass_data: u8 = 0x250, 8;
        cap_max_cpu_ingress_tclass_sb: u8 = 0x258, 8;
    }
}

crate::layout::layouts!(BufferxReg, PbmcReg, PptbReg, SbprReg, SbcmReg, SbcamReg);
