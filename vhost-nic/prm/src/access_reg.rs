//! ACCESS_REG and the registers of the port.

use crate::layout::layout;

layout! {
    /// Input of ACCESS_REGISTER.
    pub struct AccessRegisterIn: "access_register_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        register_id: u16 = 0x50, 16;
        argument: u32 = 0x60, 32;
    }
}

layout! {
    /// Output of ACCESS_REGISTER.
    pub struct AccessRegisterOut: "access_register_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// PTYS: port type and speed.
    pub struct PtysReg: "ptys_reg", 0x40 {
        an_disable_admin: bool = 0x1, 1;
        an_disable_cap: bool = 0x2, 1;
        local_port: u8 = 0x8, 8;
        plane_ind: u8 = 0x18, 4;
        proto_mask: u8 = 0x1d, 3;
        an_status: u8 = 0x20, 4;
        data_rate_oper: u16 = 0x30, 16;
        ext_eth_proto_capability: u32 = 0x40, 32;
        eth_proto_capability: u32 = 0x60, 32;
        ib_link_width_capability: u16 = 0x80, 16;
        ib_proto_capability: u16 = 0x90, 16;
        ext_eth_proto_admin: u32 = 0xa0, 32;
        eth_proto_admin: u32 = 0xc0, 32;
        ib_link_width_admin: u16 = 0xe0, 16;
        ib_proto_admin: u16 = 0xf0, 16;
        ext_eth_proto_oper: u32 = 0x100, 32;
        eth_proto_oper: u32 = 0x120, 32;
        ib_link_width_oper: u16 = 0x140, 16;
        ib_proto_oper: u16 = 0x150, 16;
        lane_rate_oper: u32 = 0x168, 20;
        connector_type: u8 = 0x17c, 4;
        eth_proto_lp_advertise: u32 = 0x180, 32;
    }
}

layout! {
    /// PAOS: port administrative and operational status.
    pub struct PaosReg: "paos_reg", 0x10 {
        swid: u8 = 0x0, 8;
        local_port: u8 = 0x8, 8;
        admin_status: u8 = 0x14, 4;
        oper_status: u8 = 0x1c, 4;
        ase: bool = 0x20, 1;
        ee: bool = 0x21, 1;
        e: u8 = 0x3e, 2;
    }
}

layout! {
    /// PMTU: port MTU.
    pub struct PmtuReg: "pmtu_reg", 0x10 {
        local_port: u8 = 0x8, 8;
        max_mtu: u16 = 0x20, 16;
        admin_mtu: u16 = 0x40, 16;
        oper_mtu: u16 = 0x60, 16;
    }
}

layout! {
    /// PCMR: port checks.
    pub struct PcmrReg: "pcmr_reg", 0xc {
        local_port: u8 = 0x8, 8;
        entropy_force_cap: bool = 0x20, 1;
        entropy_calc_cap: bool = 0x21, 1;
        entropy_gre_calc_cap: bool = 0x22, 1;
        rx_ts_over_crc_cap: bool = 0x32, 1;
        fcs_cap: bool = 0x3e, 1;
        entropy_force: bool = 0x40, 1;
        entropy_calc: bool = 0x41, 1;
        entropy_gre_calc: bool = 0x42, 1;
        rx_ts_over_crc: bool = 0x52, 1;
        fcs_chk: bool = 0x5e, 1;
    }
}

layout! {
    /// PFCC: port flow control.
    pub struct PfccReg: "pfcc_reg", 0x20 {
        buf_ownership: u8 = 0x4, 2;
        local_port: u8 = 0x8, 8;
        cable_length_mask: bool = 0x1a, 1;
        ppan_mask_n: bool = 0x1b, 1;
        minor_stall_mask: bool = 0x1c, 1;
        critical_stall_mask: bool = 0x1d, 1;
        ppan: u8 = 0x20, 4;
        prio_mask_tx: u8 = 0x28, 8;
        prio_mask_rx: u8 = 0x38, 8;
        pptx: bool = 0x40, 1;
        aptx: bool = 0x41, 1;
        pptx_mask_n: bool = 0x42, 1;
        pfctx: u8 = 0x48, 8;
        pprx: bool = 0x60, 1;
        aprx: bool = 0x61, 1;
        pprx_mask_n: bool = 0x62, 1;
        pfcrx: u8 = 0x68, 8;
        device_stall_minor_watermark: u16 = 0x80, 16;
        device_stall_critical_watermark: u16 = 0x90, 16;
        cable_length: u8 = 0xb8, 8;
    }
}

layout! {
    /// PPLM: port phy link mode.
    pub struct PplmReg: "pplm_reg", 0x78 {
        local_port: u8 = 0x8, 8;
        port_profile_mode: u8 = 0x40, 8;
        static_port_profile: u8 = 0x48, 8;
        active_port_profile: u8 = 0x50, 8;
        retransmission_active: u8 = 0x60, 8;
        fec_mode_active: u32 = 0x68, 24;
        rs_fec_correction_bypass_cap: u8 = 0x80, 4;
        fec_override_cap_56g: u8 = 0x8c, 4;
        fec_override_cap_100g: u8 = 0x90, 4;
        fec_override_cap_50g: u8 = 0x94, 4;
        fec_override_cap_25g: u8 = 0x98, 4;
        fec_override_cap_10g_40g: u8 = 0x9c, 4;
        rs_fec_correction_bypass_admin: u8 = 0xa0, 4;
        fec_override_admin_56g: u8 = 0xac, 4;
        fec_override_admin_100g: u8 = 0xb0, 4;
        fec_override_admin_50g: u8 = 0xb4, 4;
        fec_override_admin_25g: u8 = 0xb8, 4;
        fec_override_admin_10g_40g: u8 = 0xbc, 4;
        fec_override_cap_400g_8x: u16 = 0xc0, 16;
        fec_override_cap_200g_4x: u16 = 0xd0, 16;
        fec_override_cap_100g_2x: u16 = 0xe0, 16;
        fec_override_cap_50g_1x: u16 = 0xf0, 16;
        fec_override_admin_400g_8x: u16 = 0x100, 16;
        fec_override_admin_200g_4x: u16 = 0x110, 16;
        fec_override_admin_100g_2x: u16 = 0x120, 16;
        fec_override_admin_50g_1x: u16 = 0x130, 16;
        fec_override_cap_800g_8x: u16 = 0x140, 16;
        fec_override_cap_400g_4x: u16 = 0x150, 16;
        fec_override_cap_200g_2x: u16 = 0x160, 16;
        fec_override_cap_100g_1x: u16 = 0x170, 16;
        fec_override_admin_800g_8x: u16 = 0x220, 16;
        fec_override_admin_400g_4x: u16 = 0x230, 16;
        fec_override_admin_200g_2x: u16 = 0x240, 16;
        fec_override_admin_100g_1x: u16 = 0x250, 16;
        fec_override_cap_1600g_8x: u16 = 0x2c0, 16;
        fec_override_cap_800g_4x: u16 = 0x2d0, 16;
        fec_override_cap_400g_2x: u16 = 0x2e0, 16;
        fec_override_cap_200g_1x: u16 = 0x2f0, 16;
        fec_override_admin_1600g_8x: u16 = 0x300, 16;
        fec_override_admin_800g_4x: u16 = 0x310, 16;
        fec_override_admin_400g_2x: u16 = 0x320, 16;
        fec_override_admin_200g_1x: u16 = 0x330, 16;
    }
}

layout! {
    /// PVLC: virtual lane capabilities.
    pub struct PvlcReg: "pvlc_reg", 0x10 {
        local_port: u8 = 0x8, 8;
        vl_hw_cap: u8 = 0x3c, 4;
        vl_admin: u8 = 0x5c, 4;
        vl_operational: u8 = 0x7c, 4;
    }
}

layout! {
    /// PMLP: module lanes.
    pub struct PmlpReg: "pmlp_reg", 0x40 {
        rxtx: bool = 0x0, 1;
        local_port: u8 = 0x8, 8;
        width: u8 = 0x18, 8;
        lane0_module_mapping: u32 = 0x20, 32;
        lane1_module_mapping: u32 = 0x40, 32;
        lane2_module_mapping: u32 = 0x60, 32;
        lane3_module_mapping: u32 = 0x80, 32;
    }
}

layout! {
    /// PMAOS: port module administrative and operational status.
    pub struct PmaosReg: "pmaos_reg", 0x10 {
        module: u8 = 0x8, 8;
        admin_status: u8 = 0x14, 4;
        oper_status: u8 = 0x1c, 4;
        ase: bool = 0x20, 1;
        ee: bool = 0x21, 1;
        e: u8 = 0x3e, 2;
    }
}

layout! {
    /// PDDR: port diagnostics database, a page at a time.
    pub struct PddrReg: "pddr_reg", 0x100 {
        local_port: u8 = 0x8, 8;
        pnat: u8 = 0x10, 2;
        page_select: u8 = 0x38, 8;
        page_data: bytes(248) = 0x40;
    }
}

layout! {
    /// Page of PDDR: why there is no link.
    pub struct PddrTroubleshootingPage: "pddr_troubleshooting_page", 0xf8 {
        group_opcode: u16 = 0x10, 16;
        status_opcode: u32 = 0x20, 32;
        status_message: bytes(236) = 0x60;
    }
}

layout! {
    /// SLTP: transmitter of a lane.
    pub struct SltpReg: "sltp_reg", 0x14 {
        status: u8 = 0x0, 4;
        version: u8 = 0x4, 4;
        local_port: u8 = 0x8, 8;
        pnat: u8 = 0x10, 2;
        lane: u8 = 0x14, 4;
        polarity: bool = 0x47, 1;
        ob_tap0: u8 = 0x48, 8;
        ob_tap1: u8 = 0x50, 8;
        ob_tap2: u8 = 0x58, 8;
        ob_preemp_mode: u8 = 0x6c, 4;
        ob_reg: u8 = 0x70, 8;
        ob_bias: u8 = 0x78, 8;
    }
}

layout! {
    /// Registers of numbers 0x5000 to 0x507f, in PCAM.
    pub struct PcamRegs5000To507f: "pcam_regs_5000_to_507f", 0x10 {
        port_access_reg_cap_mask_127_to_96: u32 = 0x0, 32;
        port_access_reg_cap_mask_95_to_64: u32 = 0x20, 32;
        port_access_reg_cap_mask_63: bool = 0x40, 1;
        pphcr: bool = 0x41, 1;
        port_access_reg_cap_mask_61_to_36: u32 = 0x42, 26;
        pplm: bool = 0x5c, 1;
        port_access_reg_cap_mask_34_to_32: u8 = 0x5d, 3;
        port_access_reg_cap_mask_31_to_13: u32 = 0x60, 19;
        pbmc: bool = 0x73, 1;
        pptb: bool = 0x74, 1;
        port_access_reg_cap_mask_10_to_09: u8 = 0x75, 2;
        ppcnt: bool = 0x77, 1;
        port_access_reg_cap_mask_07_to_00: u8 = 0x78, 8;
    }
}

layout! {
    /// Features of the port, in PCAM.
    pub struct PcamEnhancedFeatures: "pcam_enhanced_features", 0x10 {
        ppcnt_recovery_counters: bool = 0x10, 1;
        cable_length: bool = 0x18, 1;
        fec_200g_per_lane_in_pplm: bool = 0x1d, 1;
        fec_100g_per_lane_in_pplm: bool = 0x48, 1;
        shp_pbmc_pbsr_support: bool = 0x4b, 1;
        buffer_ownership: bool = 0x53, 1;
        fec_50g_per_lane_in_pplm: bool = 0x68, 1;
        rx_icrc_encapsulated_counter: bool = 0x6d, 1;
        ptys_extended_ethernet: bool = 0x72, 1;
        pfcc_mask: bool = 0x76, 1;
        per_lane_error_counters: bool = 0x7a, 1;
        rx_buffer_fullness_counters: bool = 0x7b, 1;
        ptys_connector_type: bool = 0x7c, 1;
        ppcnt_discard_group: bool = 0x7e, 1;
        ppcnt_statistical_group: bool = 0x7f, 1;
    }
}

layout! {
    /// PCAM: port capabilities mask.
    pub struct PcamReg: "pcam_reg", 0x50 {
        feature_group: u8 = 0x8, 8;
        access_reg_group: u8 = 0x18, 8;
        regs_5000_to_507f: layout(PcamRegs5000To507f) = 0x40;
        enhanced_features: layout(PcamEnhancedFeatures) = 0x140;
    }
}

crate::layout::layouts!(
    AccessRegisterIn,
    AccessRegisterOut,
    PtysReg,
    PaosReg,
    PmtuReg,
    PcmrReg,
    PfccReg,
    PplmReg,
    PvlcReg,
    PmlpReg,
    PmaosReg,
    PddrReg,
    PddrTroubleshootingPage,
    SltpReg,
    PcamReg,
    PcamRegs5000To507f,
    PcamEnhancedFeatures
);
