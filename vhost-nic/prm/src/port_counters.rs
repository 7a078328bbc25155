//! PPCNT: counters of the port, in groups.

use crate::layout::layout;

layout! {
    /// PPCNT: port counters.
    pub struct PpcntReg: "ppcnt_reg", 0x100 {
        swid: u8 = 0x0, 8;
        local_port: u8 = 0x8, 8;
        pnat: u8 = 0x10, 2;
        grp: u8 = 0x1a, 6;
        clr: bool = 0x20, 1;
        plane_ind: u8 = 0x34, 4;
        prio_tc: u8 = 0x3b, 5;
        counter_set: bytes(248) = 0x40;
    }
}

layout! {
    /// IEEE 802.3 counters.
    pub struct Eth8023CntrsGrpDataLayout: "eth_802_3_cntrs_grp_data_layout", 0xf8 {
        a_frames_transmitted_ok_high: u32 = 0x0, 32;
        a_frames_transmitted_ok_low: u32 = 0x20, 32;
        a_frames_received_ok_high: u32 = 0x40, 32;
        a_frames_received_ok_low: u32 = 0x60, 32;
        a_frame_check_sequence_errors_high: u32 = 0x80, 32;
        a_frame_check_sequence_errors_low: u32 = 0xa0, 32;
        a_alignment_errors_high: u32 = 0xc0, 32;
        a_alignment_errors_low: u32 = 0xe0, 32;
        a_octets_transmitted_ok_high: u32 = 0x100, 32;
        a_octets_transmitted_ok_low: u32 = 0x120, 32;
        a_octets_received_ok_high: u32 = 0x140, 32;
        a_octets_received_ok_low: u32 = 0x160, 32;
        a_multicast_frames_xmitted_ok_high: u32 = 0x180, 32;
        a_multicast_frames_xmitted_ok_low: u32 = 0x1a0, 32;
        a_broadcast_frames_xmitted_ok_high: u32 = 0x1c0, 32;
        a_broadcast_frames_xmitted_ok_low: u32 = 0x1e0, 32;
        a_multicast_frames_received_ok_high: u32 = 0x200, 32;
        a_multicast_frames_received_ok_low: u32 = 0x220, 32;
        a_broadcast_frames_received_ok_high: u32 = 0x240, 32;
        a_broadcast_frames_received_ok_low: u32 = 0x260, 32;
        a_in_range_length_errors_high: u32 = 0x280, 32;
        a_in_range_length_errors_low: u32 = 0x2a0, 32;
        a_out_of_range_length_field_high: u32 = 0x2c0, 32;
        a_out_of_range_length_field_low: u32 = 0x2e0, 32;
        a_frame_too_long_errors_high: u32 = 0x300, 32;
        a_frame_too_long_errors_low: u32 = 0x320, 32;
        a_symbol_error_during_carrier_high: u32 = 0x340, 32;
        a_symbol_error_during_carrier_low: u32 = 0x360, 32;
        a_mac_control_frames_transmitted_high: u32 = 0x380, 32;
        a_mac_control_frames_transmitted_low: u32 = 0x3a0, 32;
        a_mac_control_frames_received_high: u32 = 0x3c0, 32;
        a_mac_control_frames_received_low: u32 = 0x3e0, 32;
        a_unsupported_opcodes_received_high: u32 = 0x400, 32;
        a_unsupported_opcodes_received_low: u32 = 0x420, 32;
        a_pause_mac_ctrl_frames_received_high: u32 = 0x440, 32;
        a_pause_mac_ctrl_frames_received_low: u32 = 0x460, 32;
        a_pause_mac_ctrl_frames_transmitted_high: u32 = 0x480, 32;
        a_pause_mac_ctrl_frames_transmitted_low: u32 = 0x4a0, 32;
    }
}

layout! {
    /// RFC 2863 counters.
    pub struct Eth2863CntrsGrpDataLayout: "eth_2863_cntrs_grp_data_layout", 0xf8 {
        if_in_octets_high: u32 = 0x0, 32;
        if_in_octets_low: u32 = 0x20, 32;
        if_in_ucast_pkts_high: u32 = 0x40, 32;
        if_in_ucast_pkts_low: u32 = 0x60, 32;
        if_in_discards_high: u32 = 0x80, 32;
        if_in_discards_low: u32 = 0xa0, 32;
        if_in_errors_high: u32 = 0xc0, 32;
        if_in_errors_low: u32 = 0xe0, 32;
        if_in_unknown_protos_high: u32 = 0x100, 32;
        if_in_unknown_protos_low: u32 = 0x120, 32;
        if_out_octets_high: u32 = 0x140, 32;
        if_out_octets_low: u32 = 0x160, 32;
        if_out_ucast_pkts_high: u32 = 0x180, 32;
        if_out_ucast_pkts_low: u32 = 0x1a0, 32;
        if_out_discards_high: u32 = 0x1c0, 32;
        if_out_discards_low: u32 = 0x1e0, 32;
        if_out_errors_high: u32 = 0x200, 32;
        if_out_errors_low: u32 = 0x220, 32;
        if_in_multicast_pkts_high: u32 = 0x240, 32;
        if_in_multicast_pkts_low: u32 = 0x260, 32;
        if_in_broadcast_pkts_high: u32 = 0x280, 32;
        if_in_broadcast_pkts_low: u32 = 0x2a0, 32;
        if_out_multicast_pkts_high: u32 = 0x2c0, 32;
        if_out_multicast_pkts_low: u32 = 0x2e0, 32;
        if_out_broadcast_pkts_high: u32 = 0x300, 32;
        if_out_broadcast_pkts_low: u32 = 0x320, 32;
    }
}

layout! {
    /// RFC 2819 counters.
    pub struct Eth2819CntrsGrpDataLayout: "eth_2819_cntrs_grp_data_layout", 0xf8 {
        ether_stats_drop_events_high: u32 = 0x0, 32;
        ether_stats_drop_events_low: u32 = 0x20, 32;
        ether_stats_octets_high: u32 = 0x40, 32;
        ether_stats_octets_low: u32 = 0x60, 32;
        ether_stats_pkts_high: u32 = 0x80, 32;
        ether_stats_pkts_low: u32 = 0xa0, 32;
        ether_stats_broadcast_pkts_high: u32 = 0xc0, 32;
        ether_stats_broadcast_pkts_low: u32 = 0xe0, 32;
        ether_stats_multicast_pkts_high: u32 = 0x100, 32;
        ether_stats_multicast_pkts_low: u32 = 0x120, 32;
        ether_stats_crc_align_errors_high: u32 = 0x140, 32;
        ether_stats_crc_align_errors_low: u32 = 0x160, 32;
        ether_stats_undersize_pkts_high: u32 = 0x180, 32;
        ether_stats_undersize_pkts_low: u32 = 0x1a0, 32;
        ether_stats_oversize_pkts_high: u32 = 0x1c0, 32;
        ether_stats_oversize_pkts_low: u32 = 0x1e0, 32;
        ether_stats_fragments_high: u32 = 0x200, 32;
        ether_stats_fragments_low: u32 = 0x220, 32;
        ether_stats_jabbers_high: u32 = 0x240, 32;
        ether_stats_jabbers_low: u32 = 0x260, 32;
        ether_stats_collisions_high: u32 = 0x280, 32;
        ether_stats_collisions_low: u32 = 0x2a0, 32;
        ether_stats_pkts64octets_high: u32 = 0x2c0, 32;
        ether_stats_pkts64octets_low: u32 = 0x2e0, 32;
        ether_stats_pkts65to127octets_high: u32 = 0x300, 32;
        ether_stats_pkts65to127octets_low: u32 = 0x320, 32;
        ether_stats_pkts128to255octets_high: u32 = 0x340, 32;
        ether_stats_pkts128to255octets_low: u32 = 0x360, 32;
        ether_stats_pkts256to511octets_high: u32 = 0x380, 32;
        ether_stats_pkts256to511octets_low: u32 = 0x3a0, 32;
        ether_stats_pkts512to1023octets_high: u32 = 0x3c0, 32;
        ether_stats_pkts512to1023octets_low: u32 = 0x3e0, 32;
        ether_stats_pkts1024to1518octets_high: u32 = 0x400, 32;
        ether_stats_pkts1024to1518octets_low: u32 = 0x420, 32;
        ether_stats_pkts1519to2047octets_high: u32 = 0x440, 32;
        ether_stats_pkts1519to2047octets_low: u32 = 0x460, 32;
        ether_stats_pkts2048to4095octets_high: u32 = 0x480, 32;
        ether_stats_pkts2048to4095octets_low: u32 = 0x4a0, 32;
        ether_stats_pkts4096to8191octets_high: u32 = 0x4c0, 32;
        ether_stats_pkts4096to8191octets_low: u32 = 0x4e0, 32;
        ether_stats_pkts8192to10239octets_high: u32 = 0x500, 32;
        ether_stats_pkts8192to10239octets_low: u32 = 0x520, 32;
    }
}

layout! {
    /// RFC 3635 counters.
    pub struct Eth3635CntrsGrpDataLayout: "eth_3635_cntrs_grp_data_layout", 0xf8 {
        dot3stats_alignment_errors_high: u32 = 0x0, 32;
        dot3stats_alignment_errors_low: u32 = 0x20, 32;
        dot3stats_fcs_errors_high: u32 = 0x40, 32;
        dot3stats_fcs_errors_low: u32 = 0x60, 32;
        dot3stats_single_collision_frames_high: u32 = 0x80, 32;
        dot3stats_single_collision_frames_low: u32 = 0xa0, 32;
        dot3stats_multiple_collision_frames_high: u32 = 0xc0, 32;
        dot3stats_multiple_collision_frames_low: u32 = 0xe0, 32;
        dot3stats_sqe_test_errors_high: u32 = 0x100, 32;
        dot3stats_sqe_test_errors_low: u32 = 0x120, 32;
        dot3stats_deferred_transmissions_high: u32 = 0x140, 32;
        dot3stats_deferred_transmissions_low: u32 = 0x160, 32;
        dot3stats_late_collisions_high: u32 = 0x180, 32;
        dot3stats_late_collisions_low: u32 = 0x1a0, 32;
        dot3stats_excessive_collisions_high: u32 = 0x1c0, 32;
        dot3stats_excessive_collisions_low: u32 = 0x1e0, 32;
        dot3stats_internal_mac_transmit_errors_high: u32 = 0x200, 32;
        dot3stats_internal_mac_transmit_errors_low: u32 = 0x220, 32;
        dot3stats_carrier_sense_errors_high: u32 = 0x240, 32;
        dot3stats_carrier_sense_errors_low: u32 = 0x260, 32;
        dot3stats_frame_too_longs_high: u32 = 0x280, 32;
        dot3stats_frame_too_longs_low: u32 = 0x2a0, 32;
        dot3stats_internal_mac_receive_errors_high: u32 = 0x2c0, 32;
        dot3stats_internal_mac_receive_errors_low: u32 = 0x2e0, 32;
        dot3stats_symbol_errors_high: u32 = 0x300, 32;
        dot3stats_symbol_errors_low: u32 = 0x320, 32;
        dot3control_in_unknown_opcodes_high: u32 = 0x340, 32;
        dot3control_in_unknown_opcodes_low: u32 = 0x360, 32;
        dot3in_pause_frames_high: u32 = 0x380, 32;
        dot3in_pause_frames_low: u32 = 0x3a0, 32;
        dot3out_pause_frames_high: u32 = 0x3c0, 32;
        dot3out_pause_frames_low: u32 = 0x3e0, 32;
    }
}

layout! {
    /// Extended Ethernet counters.
    pub struct EthExtendedCntrsGrpDataLayout: "eth_extended_cntrs_grp_data_layout", 0xf8 {
        port_transmit_wait_high: u32 = 0x0, 32;
        port_transmit_wait_low: u32 = 0x20, 32;
        rx_buffer_almost_full_high: u32 = 0x140, 32;
        rx_buffer_almost_full_low: u32 = 0x160, 32;
        rx_buffer_full_high: u32 = 0x180, 32;
        rx_buffer_full_low: u32 = 0x1a0, 32;
        rx_icrc_encapsulated_high: u32 = 0x1c0, 32;
        rx_icrc_encapsulated_low: u32 = 0x1e0, 32;
    }
}

layout! {
    /// Counters of one priority.
    pub struct EthPerPrioGrpDataLayout: "eth_per_prio_grp_data_layout", 0xf8 {
        rx_octets_high: u32 = 0x0, 32;
        rx_octets_low: u32 = 0x20, 32;
        rx_frames_high: u32 = 0x100, 32;
        rx_frames_low: u32 = 0x120, 32;
        tx_octets_high: u32 = 0x140, 32;
        tx_octets_low: u32 = 0x160, 32;
        tx_frames_high: u32 = 0x240, 32;
        tx_frames_low: u32 = 0x260, 32;
        rx_pause_high: u32 = 0x280, 32;
        rx_pause_low: u32 = 0x2a0, 32;
        rx_pause_duration_high: u32 = 0x2c0, 32;
        rx_pause_duration_low: u32 = 0x2e0, 32;
        tx_pause_high: u32 = 0x300, 32;
        tx_pause_low: u32 = 0x320, 32;
        tx_pause_duration_high: u32 = 0x340, 32;
        tx_pause_duration_low: u32 = 0x360, 32;
        rx_pause_transition_high: u32 = 0x380, 32;
        rx_pause_transition_low: u32 = 0x3a0, 32;
        rx_discards_high: u32 = 0x3c0, 32;
        rx_discards_low: u32 = 0x3e0, 32;
        device_stall_minor_watermark_cnt_high: u32 = 0x400, 32;
        device_stall_minor_watermark_cnt_low: u32 = 0x420, 32;
        device_stall_critical_watermark_cnt_high: u32 = 0x440, 32;
        device_stall_critical_watermark_cnt_low: u32 = 0x460, 32;
    }
}

layout! {
    /// InfiniBand port counters.
    pub struct IbPortCntrsGrpDataLayout: "ib_port_cntrs_grp_data_layout", 0x28 {
        symbol_error_counter: u16 = 0x0, 16;
        link_error_recovery_counter: u8 = 0x10, 8;
        link_downed_counter: u8 = 0x18, 8;
        port_rcv_errors: u16 = 0x20, 16;
        port_rcv_remote_physical_errors: u16 = 0x30, 16;
        port_rcv_switch_relay_errors: u16 = 0x40, 16;
        port_xmit_discards: u16 = 0x50, 16;
        port_xmit_constraint_errors: u8 = 0x60, 8;
        port_rcv_constraint_errors: u8 = 0x68, 8;
        link_overrun_errors: u8 = 0x78, 8;
        vl_15_dropped: u16 = 0x90, 16;
        port_xmit_wait: u32 = 0x120, 32;
    }
}

layout! {
    /// Physical layer counters.
    pub struct PhysLayerCntrs: "phys_layer_cntrs", 0xf8 {
        time_since_last_clear_high: u32 = 0x0, 32;
        time_since_last_clear_low: u32 = 0x20, 32;
        symbol_errors_high: u32 = 0x40, 32;
        symbol_errors_low: u32 = 0x60, 32;
        sync_headers_errors_high: u32 = 0x80, 32;
        sync_headers_errors_low: u32 = 0xa0, 32;
        edpl_bip_errors_lane0_high: u32 = 0xc0, 32;
        edpl_bip_errors_lane0_low: u32 = 0xe0, 32;
        edpl_bip_errors_lane1_high: u32 = 0x100, 32;
        edpl_bip_errors_lane1_low: u32 = 0x120, 32;
        edpl_bip_errors_lane2_high: u32 = 0x140, 32;
        edpl_bip_errors_lane2_low: u32 = 0x160, 32;
        edpl_bip_errors_lane3_high: u32 = 0x180, 32;
        edpl_bip_errors_lane3_low: u32 = 0x1a0, 32;
        fc_fec_corrected_blocks_lane0_high: u32 = 0x1c0, 32;
        fc_fec_corrected_blocks_lane0_low: u32 = 0x1e0, 32;
        fc_fec_corrected_blocks_lane1_high: u32 = 0x200, 32;
        fc_fec_corrected_blocks_lane1_low: u32 = 0x220, 32;
        fc_fec_corrected_blocks_lane2_high: u32 = 0x240, 32;
        fc_fec_corrected_blocks_lane2_low: u32 = 0x260, 32;
        fc_fec_corrected_blocks_lane3_high: u32 = 0x280, 32;
        fc_fec_corrected_blocks_lane3_low: u32 = 0x2a0, 32;
        fc_fec_uncorrectable_blocks_lane0_high: u32 = 0x2c0, 32;
        fc_fec_uncorrectable_blocks_lane0_low: u32 = 0x2e0, 32;
        fc_fec_uncorrectable_blocks_lane1_high: u32 = 0x300, 32;
        fc_fec_uncorrectable_blocks_lane1_low: u32 = 0x320, 32;
        fc_fec_uncorrectable_blocks_lane2_high: u32 = 0x340, 32;
        fc_fec_uncorrectable_blocks_lane2_low: u32 = 0x360, 32;
        fc_fec_uncorrectable_blocks_lane3_high: u32 = 0x380, 32;
        fc_fec_uncorrectable_blocks_lane3_low: u32 = 0x3a0, 32;
        rs_fec_corrected_blocks_high: u32 = 0x3c0, 32;
        rs_fec_corrected_blocks_low: u32 = 0x3e0, 32;
        rs_fec_uncorrectable_blocks_high: u32 = 0x400, 32;
        rs_fec_uncorrectable_blocks_low: u32 = 0x420, 32;
        rs_fec_no_errors_blocks_high: u32 = 0x440, 32;
        rs_fec_no_errors_blocks_low: u32 = 0x460, 32;
        rs_fec_single_error_blocks_high: u32 = 0x480, 32;
        rs_fec_single_error_blocks_low: u32 = 0x4a0, 32;
        rs_fec_corrected_symbols_total_high: u32 = 0x4c0, 32;
        rs_fec_corrected_symbols_total_low: u32 = 0x4e0, 32;
        rs_fec_corrected_symbols_lane0_high: u32 = 0x500, 32;
        rs_fec_corrected_symbols_lane0_low: u32 = 0x520, 32;
        rs_fec_corrected_symbols_lane1_high: u32 = 0x540, 32;
        rs_fec_corrected_symbols_lane1_low: u32 = 0x560, 32;
        rs_fec_corrected_symbols_lane2_high: u32 = 0x580, 32;
        rs_fec_corrected_symbols_lane2_low: u32 = 0x5a0, 32;
        rs_fec_corrected_symbols_lane3_high: u32 = 0x5c0, 32;
        rs_fec_corrected_symbols_lane3_low: u32 = 0x5e0, 32;
        link_down_events: u32 = 0x600, 32;
        successful_recovery_events: u32 = 0x620, 32;
    }
}

layout! {
    /// Statistics of the physical layer.
    pub struct PhysLayerStatisticalCntrs: "phys_layer_statistical_cntrs", 0xf8 {
        time_since_last_clear_high: u32 = 0x0, 32;
        time_since_last_clear_low: u32 = 0x20, 32;
        phy_received_bits_high: u32 = 0x40, 32;
        phy_received_bits_low: u32 = 0x60, 32;
        phy_symbol_errors_high: u32 = 0x80, 32;
        phy_symbol_errors_low: u32 = 0xa0, 32;
        phy_corrected_bits_high: u32 = 0xc0, 32;
        phy_corrected_bits_low: u32 = 0xe0, 32;
        phy_corrected_bits_lane0_high: u32 = 0x100, 32;
        phy_corrected_bits_lane0_low: u32 = 0x120, 32;
        phy_corrected_bits_lane1_high: u32 = 0x140, 32;
        phy_corrected_bits_lane1_low: u32 = 0x160, 32;
        phy_corrected_bits_lane2_high: u32 = 0x180, 32;
        phy_corrected_bits_lane2_low: u32 = 0x1a0, 32;
        phy_corrected_bits_lane3_high: u32 = 0x1c0, 32;
        phy_corrected_bits_lane3_low: u32 = 0x1e0, 32;
    }
}

crate::layout::layouts!(
    PpcntReg,
    Eth8023CntrsGrpDataLayout,
    Eth2863CntrsGrpDataLayout,
    Eth2819CntrsGrpDataLayout,
    Eth3635CntrsGrpDataLayout,
    EthExtendedCntrsGrpDataLayout,
    EthPerPrioGrpDataLayout,
    IbPortCntrsGrpDataLayout,
    PhysLayerCntrs,
    PhysLayerStatisticalCntrs,
);
