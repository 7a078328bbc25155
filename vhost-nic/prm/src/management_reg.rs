//! Management registers of ACCESS_REG: module, LED, versions, resets, configuration in flash.

use crate::layout::layout;

layout! {
    /// MCIA: module information.
    pub struct MciaReg: "mcia_reg", 0x90 {
        l: bool = 0x0, 1;
        module: u8 = 0x8, 8;
        status: u8 = 0x18, 8;
        i2c_device_address: u8 = 0x20, 8;
        page_number: u8 = 0x28, 8;
        device_address: u16 = 0x30, 16;
        size: u16 = 0x50, 16;
        dwords: bytes(128) = 0x80;
    }
}

layout! {
    /// MLCR: management LED control.
    pub struct MlcrReg: "mlcr_reg", 0xc {
        local_port: u8 = 0x8, 8;
        beacon_duration: u16 = 0x30, 16;
        beacon_remain: u16 = 0x50, 16;
    }
}

layout! {
    /// Registers of numbers 0x9000 to 0x907f, in MCAM.
    pub struct McamAccessReg: "mcam_access_reg", 0x10 {
        mcda: bool = 0x1c, 1;
        mcc: bool = 0x1d, 1;
        mcqi: bool = 0x1e, 1;
        mcqs: bool = 0x1f, 1;
        regs_95_to_90: u8 = 0x20, 6;
        mpir: bool = 0x26, 1;
        regs_88_to_87: u8 = 0x27, 2;
        mpegc: bool = 0x29, 1;
        mtutc: bool = 0x2a, 1;
        regs_84_to_68: u32 = 0x2b, 17;
        tracer_registers: u8 = 0x3c, 4;
        regs_63_to_46: u32 = 0x40, 18;
        mrtc: bool = 0x52, 1;
        regs_44_to_41: u8 = 0x53, 4;
        mfrl: bool = 0x57, 1;
        regs_39_to_32: u8 = 0x58, 8;
        regs_31_to_11: u32 = 0x60, 21;
        mtmp: bool = 0x75, 1;
        regs_9_to_0: u16 = 0x76, 10;
    }
}

layout! {
    /// Management features, in MCAM.
    pub struct McamEnhancedFeatures: "mcam_enhanced_features", 0x10 {
        mtutc_freq_adj_units: bool = 0x50, 1;
        mtutc_time_adjustment_extended_range: bool = 0x51, 1;
        mcia_32dwords: bool = 0x5d, 1;
        out_pulse_duration_ns: bool = 0x5e, 1;
        npps_period: bool = 0x5f, 1;
        reset_state: bool = 0x6a, 1;
        ptpcyc2realtime_modify: bool = 0x6b, 1;
        pci_status_and_power: bool = 0x6e, 1;
        mark_tx_action_cnp: bool = 0x74, 1;
        mark_tx_action_cqe: bool = 0x75, 1;
        dynamic_tx_overflow: bool = 0x76, 1;
        pcie_outbound_stalled: bool = 0x7b, 1;
        tx_overflow_buffer_pkt: bool = 0x7c, 1;
        mtpps_enh_out_per_adj: bool = 0x7d, 1;
        mtpps_fs: bool = 0x7e, 1;
        pcie_performance_group: bool = 0x7f, 1;
    }
}

layout! {
    /// MCAM: management capabilities mask.
    pub struct McamReg: "mcam_reg", 0x48 {
        feature_group: u8 = 0x8, 8;
        access_reg_group: u8 = 0x18, 8;
        access_regs: layout(McamAccessReg) = 0x40;
        enhanced_features: layout(McamEnhancedFeatures) = 0x140;
    }
}

layout! {
    /// MCQS: status of a firmware component.
    pub struct McqsReg: "mcqs_reg", 0x10 {
        last_index_flag: bool = 0x0, 1;
        fw_device: u8 = 0x8, 8;
        component_index: u16 = 0x10, 16;
        identifier: u16 = 0x30, 16;
        component_status: u8 = 0x57, 5;
        component_update_state: u8 = 0x5c, 4;
        last_update_state_changer_type: u8 = 0x60, 4;
        last_update_state_changer_host_id: u8 = 0x64, 4;
    }
}

layout! {
    /// MCQI: information about a firmware component, which follows.
    pub struct McqiReg: "mcqi_reg", 0x18 {
        read_pending_component: bool = 0x0, 1;
        component_index: u16 = 0x10, 16;
        info_type: u8 = 0x5b, 5;
        info_size: u32 = 0x60, 32;
        offset: u32 = 0x80, 32;
        data_size: u16 = 0xb0, 16;
    }
}

layout! {
    /// Capabilities of a component, in MCQI.
    pub struct McqiCap: "mcqi_cap", 0x14 {
        supported_info_bitmask: u32 = 0x0, 32;
        component_size: u32 = 0x20, 32;
        max_component_size: u32 = 0x40, 32;
        log_mcda_word_size: u8 = 0x60, 4;
        mcda_max_write_size: u16 = 0x70, 16;
        rd_en: bool = 0x80, 1;
        match_chip_id: bool = 0x82, 1;
        match_psid: bool = 0x83, 1;
        check_user_timestamp: bool = 0x84, 1;
        match_base_guid_mac: bool = 0x85, 1;
    }
}

layout! {
    /// Version of a component, in MCQI.
    pub struct McqiVersion: "mcqi_version", 0x7c {
        build_time_valid: bool = 0x2, 1;
        user_defined_time_valid: bool = 0x3, 1;
        version_string_length: u8 = 0x18, 8;
        version: u32 = 0x20, 32;
        build_time: u64 = 0x40, 64;
        user_defined_time: u64 = 0x80, 64;
        build_tool_version: u32 = 0xc0, 32;
        version_string: bytes(92) = 0x100;
    }
}

layout! {
    /// Activation of a component, in MCQI.
    pub struct McqiActivationMethod: "mcqi_activation_method", 0x4 {
        pending_server_ac_power_cycle: bool = 0x0, 1;
        pending_server_dc_power_cycle: bool = 0x1, 1;
        pending_server_reboot: bool = 0x2, 1;
        pending_fw_reset: bool = 0x3, 1;
        auto_activate: bool = 0x4, 1;
        all_hosts_sync: bool = 0x5, 1;
        device_hw_reset: bool = 0x6, 1;
    }
}

layout! {
    /// MCC: control of an update of a firmware component.
    pub struct MccReg: "mcc_reg", 0x20 {
        time_elapsed_since_last_cmd: u16 = 0x4, 12;
        instruction: u8 = 0x18, 8;
        component_index: u16 = 0x30, 16;
        update_handle: u32 = 0x48, 24;
        handle_owner_type: u8 = 0x60, 4;
        handle_owner_host_id: u8 = 0x64, 4;
        control_progress: u8 = 0x69, 7;
        error_code: u8 = 0x70, 8;
        control_state: u8 = 0x7c, 4;
        component_size: u32 = 0x80, 32;
    }
}

layout! {
    /// MFRL: firmware reset level.
    pub struct MfrlReg: "mfrl_reg", 0x8 {
        pci_sync_for_fw_update_start: bool = 0x22, 1;
        pci_sync_for_fw_update_resp: u8 = 0x23, 2;
        rst_type_sel: u8 = 0x25, 3;
        pci_reset_req_method: u8 = 0x28, 3;
        reset_state: u8 = 0x2c, 4;
        reset_type: u8 = 0x30, 8;
        reset_level: u8 = 0x38, 8;
    }
}

crate::layout::layouts!(
    MciaReg,
    MlcrReg,
    McamAccessReg,
    McamEnhancedFeatures,
    McamReg,
    McqsReg,
    McqiReg,
    McqiCap,
    McqiVersion,
    McqiActivationMethod,
    MccReg,
    MfrlReg,
);
