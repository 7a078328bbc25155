//! Capabilities of the HCA, and the commands that query and set them.

use crate::layout::layout;

layout! {
    /// Input of QUERY_HCA_CAP.
    pub struct QueryHcaCapIn: "query_hca_cap_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_function: bool = 0x40, 1;
        ec_vf_function: bool = 0x41, 1;
        function_id_type: bool = 0x43, 1;
        function_id: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of QUERY_HCA_CAP.
    pub struct QueryHcaCapOut: "query_hca_cap_out", 0x1010 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        capability: bytes(4096) = 0x80;
    }
}

layout! {
    /// Input of SET_HCA_CAP.
    pub struct SetHcaCapIn: "set_hca_cap_in", 0x1010 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_function: bool = 0x40, 1;
        ec_vf_function: bool = 0x41, 1;
        function_id_type: bool = 0x43, 1;
        function_id: u16 = 0x50, 16;
        capability: bytes(4096) = 0x80;
    }
}

layout! {
    /// Output of SET_HCA_CAP.
    pub struct SetHcaCapOut: "set_hca_cap_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// General device capabilities.
    pub struct CmdHcaCap: "cmd_hca_cap", 0x100 {
        page_request_disable: bool = 0x6, 1;
        abs_native_port_num: bool = 0x7, 1;
        shared_object_to_user_object_allowed: bool = 0x10, 1;
        vhca_resource_manager: bool = 0x1f, 1;
        hca_cap_2: bool = 0x20, 1;
        create_lag_when_not_master_up: bool = 0x21, 1;
        dtor: bool = 0x22, 1;
        event_on_vhca_state_teardown_request: bool = 0x23, 1;
        event_on_vhca_state_in_use: bool = 0x24, 1;
        event_on_vhca_state_active: bool = 0x25, 1;
        event_on_vhca_state_allocated: bool = 0x26, 1;
        event_on_vhca_state_invalid: bool = 0x27, 1;
        vhca_id: u16 = 0x30, 16;
        log_max_srq_sz: u8 = 0x80, 8;
        log_max_qp_sz: u8 = 0x88, 8;
        event_cap: bool = 0x90, 1;
        isolate_vl_tc_new: bool = 0x93, 1;
        prio_tag_required: bool = 0x98, 1;
        log_max_qp: u8 = 0x9b, 5;
        ece_support: bool = 0xa3, 1;
        reg_c_preserve: bool = 0xa9, 1;
        log_max_srq: u8 = 0xab, 5;
        uplink_follow: bool = 0xb1, 1;
        ts_cqe_to_dest_cqn: bool = 0xb2, 1;
        go_back_n: bool = 0xb9, 1;
        max_sgl_for_optimized_performance: u8 = 0xc0, 8;
        log_max_cq_sz: u8 = 0xc8, 8;
        relaxed_ordering_write_umr: bool = 0xd0, 1;
        relaxed_ordering_read_umr: bool = 0xd1, 1;
        virtio_net_device_emualtion_manager: bool = 0xd9, 1;
        virtio_blk_device_emualtion_manager: bool = 0xda, 1;
        log_max_cq: u8 = 0xdb, 5;
        log_max_eq_sz: u8 = 0xe0, 8;
        relaxed_ordering_write: bool = 0xe8, 1;
        relaxed_ordering_read_pci_enabled: bool = 0xe9, 1;
        log_max_mkey: u8 = 0xea, 6;
        terminate_scatter_list_mkey: bool = 0xf6, 1;
        repeated_mkey: bool = 0xf7, 1;
        dump_fill_mkey: bool = 0xf8, 1;
        fast_teardown: bool = 0xfb, 1;
        log_max_eq: u8 = 0xfc, 4;
        max_indirection: u8 = 0x100, 8;
        fixed_buffer_size: bool = 0x108, 1;
        log_max_mrw_sz: u8 = 0x109, 7;
        force_teardown: bool = 0x110, 1;
        log_max_bsf_list_size: u8 = 0x112, 6;
        umr_extended_translation_offset: bool = 0x118, 1;
        null_mkey: bool = 0x119, 1;
        log_max_klm_list_size: u8 = 0x11a, 6;
        qpc_extension: bool = 0x122, 1;
        log_max_ra_req_dc: u8 = 0x12a, 6;
        eth_wqe_too_small: bool = 0x132, 1;
        vnic_env_cq_overrun: bool = 0x139, 1;
        log_max_ra_res_dc: u8 = 0x13a, 6;
        release_all_pages: bool = 0x145, 1;
        must_not_use: bool = 0x146, 1;
        roce_accl: bool = 0x149, 1;
        log_max_ra_req_qp: u8 = 0x14a, 6;
        log_max_ra_res_qp: u8 = 0x15a, 6;
        end_pad: bool = 0x160, 1;
        cc_query_allowed: bool = 0x161, 1;
        cc_modify_allowed: bool = 0x162, 1;
        start_pad: bool = 0x163, 1;
        cache_line_128byte: bool = 0x164, 1;
        rts2rts_qp_counters_set_id: bool = 0x169, 1;
        vnic_env_int_rq_oob: bool = 0x16c, 1;
        sbcam_reg: bool = 0x16d, 1;
        qcam_reg: bool = 0x16f, 1;
        gid_table_size: u16 = 0x170, 16;
        out_of_seq_cnt: bool = 0x180, 1;
        vport_counters: bool = 0x181, 1;
        retransmission_q_counters: bool = 0x182, 1;
        debug: bool = 0x183, 1;
        modify_rq_counter_set_id: bool = 0x184, 1;
        rq_delay_drop: bool = 0x185, 1;
        max_qp_cnt: u16 = 0x186, 10;
        pkey_table_size: u16 = 0x190, 16;
        vport_group_manager: bool = 0x1a0, 1;
        vhca_group_manager: bool = 0x1a1, 1;
        ib_virt: bool = 0x1a2, 1;
        eth_virt: bool = 0x1a3, 1;
        vnic_env_queue_counters: bool = 0x1a4, 1;
        ets: bool = 0x1a5, 1;
        nic_flow_table: bool = 0x1a6, 1;
        eswitch_manager: bool = 0x1a7, 1;
        device_memory: bool = 0x1a8, 1;
        mcam_reg: bool = 0x1a9, 1;
        pcam_reg: bool = 0x1aa, 1;
        local_ca_ack_delay: u8 = 0x1ab, 5;
        port_module_event: bool = 0x1b0, 1;
        enhanced_error_q_counters: bool = 0x1b1, 1;
        ports_check: bool = 0x1b2, 1;
        disable_link_up: bool = 0x1b4, 1;
        beacon_led: bool = 0x1b5, 1;
        port_type: u8 = 0x1b6, 2;
        num_ports: u8 = 0x1b8, 8;
        pps: bool = 0x1c1, 1;
        pps_modify: bool = 0x1c2, 1;
        log_max_msg: u8 = 0x1c3, 5;
        max_tc: u8 = 0x1cc, 4;
        temp_warn_event: bool = 0x1d0, 1;
        dcbx: bool = 0x1d1, 1;
        general_notification_event: bool = 0x1d2, 1;
        fpga: bool = 0x1d5, 1;
        rol_s: bool = 0x1d6, 1;
        rol_g: bool = 0x1d7, 1;
        wol_s: bool = 0x1d9, 1;
        wol_g: bool = 0x1da, 1;
        wol_a: bool = 0x1db, 1;
        wol_b: bool = 0x1dc, 1;
        wol_m: bool = 0x1dd, 1;
        wol_u: bool = 0x1de, 1;
        wol_p: bool = 0x1df, 1;
        stat_rate_support: u16 = 0x1e0, 16;
        pci_sync_for_fw_update_event: bool = 0x1f1, 1;
        init2_lag_tx_port_affinity: bool = 0x1f8, 1;
        wqe_based_flow_table_update_cap: bool = 0x1fb, 1;
        cqe_version: u8 = 0x1fc, 4;
        compact_address_vector: bool = 0x200, 1;
        striding_rq: bool = 0x201, 1;
        ipoib_enhanced_offloads: bool = 0x203, 1;
        ipoib_basic_offloads: bool = 0x204, 1;
        repeated_block_disabled: bool = 0x206, 1;
        umr_modify_entity_size_disabled: bool = 0x207, 1;
        umr_modify_atomic_disabled: bool = 0x208, 1;
        umr_indirect_mkey_disabled: bool = 0x209, 1;
        umr_fence: u8 = 0x20a, 2;
        dc_req_scat_data_cqe: bool = 0x20c, 1;
        drain_sigerr: bool = 0x20f, 1;
        cmdif_checksum: u8 = 0x210, 2;
        sigerr_cqe: bool = 0x212, 1;
        wq_signature: bool = 0x214, 1;
        sctr_data_cqe: bool = 0x215, 1;
        sho: bool = 0x217, 1;
        tph: bool = 0x218, 1;
        rf: bool = 0x219, 1;
        dct: bool = 0x21a, 1;
        qos: bool = 0x21b, 1;
        eth_net_offloads: bool = 0x21c, 1;
        roce: bool = 0x21d, 1;
        atomic: bool = 0x21e, 1;
        cq_oi: bool = 0x220, 1;
        cq_resize: bool = 0x221, 1;
        cq_moderation: bool = 0x222, 1;
        cq_period_mode_modify: bool = 0x223, 1;
        cq_eq_remap: bool = 0x226, 1;
        pg: bool = 0x227, 1;
        block_lb_mc: bool = 0x228, 1;
        scqe_break_moderation: bool = 0x22a, 1;
        cq_period_start_from_cqe: bool = 0x22b, 1;
        cd: bool = 0x22c, 1;
        apm: bool = 0x22e, 1;
        vector_calc: bool = 0x22f, 1;
        umr_ptr_rlky: bool = 0x230, 1;
        imaicl: bool = 0x231, 1;
        qp_packet_based: bool = 0x232, 1;
        qkv: bool = 0x236, 1;
        pkv: bool = 0x237, 1;
        set_deth_sqpn: bool = 0x238, 1;
        xrc: bool = 0x23c, 1;
        ud: bool = 0x23d, 1;
        uc: bool = 0x23e, 1;
        rc: bool = 0x23f, 1;
        uar_4k: bool = 0x240, 1;
        fl_rc_qp_when_roce_disabled: bool = 0x248, 1;
        regexp_params: bool = 0x249, 1;
        uar_sz: u8 = 0x24a, 6;
        port_selection_cap: bool = 0x250, 1;
        nic_cap_reg: bool = 0x251, 1;
        umem_uid_0: bool = 0x252, 1;
        log_pg_sz: u8 = 0x258, 8;
        bf: bool = 0x260, 1;
        driver_version: bool = 0x261, 1;
        pad_tx_eth_packet: bool = 0x262, 1;
        mkey_by_name: bool = 0x266, 1;
        log_bf_reg_size: u8 = 0x26b, 5;
        disciplined_fr_counter: bool = 0x270, 1;
        qp_error_syndrome: bool = 0x273, 1;
        lag_dct: u8 = 0x276, 2;
        lag_tx_port_affinity: bool = 0x278, 1;
        lag_native_fdb_selection: bool = 0x279, 1;
        lag_master: bool = 0x27b, 1;
        num_lag_ports: u8 = 0x27c, 4;
        max_wqe_sz_sq: u16 = 0x290, 16;
        icm_mng_function_id_mode: bool = 0x2a0, 1;
        mkey_pcie_tph: bool = 0x2a7, 1;
        tis_tir_td_order: bool = 0x2a9, 1;
        psp: bool = 0x2aa, 1;
        shampo: bool = 0x2ab, 1;
        max_wqe_sz_rq: u16 = 0x2b0, 16;
        max_flow_counter_31_16: u16 = 0x2c0, 16;
        max_wqe_sz_sq_dc: u16 = 0x2d0, 16;
        query_host_net_function_num_max: u8 = 0x2e0, 5;
        max_qp_mcg: u32 = 0x2e7, 25;
        flow_counter_bulk_alloc: u8 = 0x310, 8;
        log_max_mcg: u8 = 0x318, 8;
        log_max_transport_domain: u8 = 0x323, 5;
        relaxed_ordering_read: bool = 0x32a, 1;
        log_max_pd: u8 = 0x32b, 5;
        dp_ordering_ooo_all_ud: bool = 0x330, 1;
        dp_ordering_ooo_all_uc: bool = 0x331, 1;
        dp_ordering_ooo_all_xrc: bool = 0x332, 1;
        dp_ordering_ooo_all_dc: bool = 0x333, 1;
        dp_ordering_ooo_all_rc: bool = 0x334, 1;
        pcie_reset_using_hotreset_method: bool = 0x335, 1;
        pci_sync_for_fw_update_with_driver_unload: bool = 0x336, 1;
        vnic_env_cnt_steering_fail: bool = 0x337, 1;
        vport_counter_local_loopback: bool = 0x338, 1;
        q_counter_aggregation: bool = 0x339, 1;
        q_counter_other_vport: bool = 0x33a, 1;
        log_max_xrcd: u8 = 0x33b, 5;
        nic_receive_steering_discard: bool = 0x340, 1;
        receive_discard_vport_down: bool = 0x341, 1;
        transmit_discard_vport_down: bool = 0x342, 1;
        eq_overrun_count: bool = 0x343, 1;
        invalid_command_count: bool = 0x345, 1;
        quota_exceeded_count: bool = 0x346, 1;
        log_max_flow_counter_bulk: u8 = 0x348, 8;
        max_flow_counter_15_0: u16 = 0x350, 16;
        log_max_rq: u8 = 0x363, 5;
        ft_alias_sw_vhca_id: bool = 0x368, 1;
        log_max_sq: u8 = 0x36b, 5;
        log_max_tir: u8 = 0x373, 5;
        log_max_tis: u8 = 0x37b, 5;
        basic_cyclic_rcv_wqe: bool = 0x380, 1;
        log_max_rmp: u8 = 0x383, 5;
        sd_group_size: bool = 0x388, 1;
        log_max_rqt: u8 = 0x38b, 5;
        log_max_rqt_size: u8 = 0x393, 5;
        tlp_device_emulation_manager: bool = 0x398, 1;
        vnic_env_cnt_bar_uar_access: bool = 0x399, 1;
        vnic_env_cnt_odp_page_fault: bool = 0x39a, 1;
        log_max_tis_per_sq: u8 = 0x39b, 5;
        ext_stride_num_range: bool = 0x3a0, 1;
        roce_rw_supported: bool = 0x3a1, 1;
        log_max_current_uc_list_wr_supported: bool = 0x3a2, 1;
        log_max_stride_sz_rq: u8 = 0x3a3, 5;
        log_min_stride_sz_rq: u8 = 0x3ab, 5;
        qp_latency_sensitive_disable: bool = 0x3b2, 1;
        log_max_stride_sz_sq: u8 = 0x3b3, 5;
        log_min_stride_sz_sq: u8 = 0x3bb, 5;
        hairpin: bool = 0x3c0, 1;
        log_max_hairpin_queues: u8 = 0x3c3, 5;
        log_max_hairpin_wq_data_sz: u8 = 0x3cb, 5;
        log_max_hairpin_num_packets: u8 = 0x3d3, 5;
        log_max_wq_sz: u8 = 0x3db, 5;
        nic_vport_change_event: bool = 0x3e0, 1;
        disable_local_lb_uc: bool = 0x3e1, 1;
        disable_local_lb_mc: bool = 0x3e2, 1;
        log_min_hairpin_wq_data_sz: u8 = 0x3e3, 5;
        silent_mode_set: bool = 0x3e9, 1;
        vhca_state: bool = 0x3ea, 1;
        log_max_vlan_list: u8 = 0x3eb, 5;
        log_max_current_mc_list: u8 = 0x3f3, 5;
        silent_mode_query: bool = 0x3f9, 1;
        query_host_net_function_v1: bool = 0x3fa, 1;
        log_max_current_uc_list: u8 = 0x3fb, 5;
        general_obj_types: u64 = 0x400, 64;
        sq_ts_format: u8 = 0x440, 2;
        rq_ts_format: u8 = 0x442, 2;
        steering_format_version: u8 = 0x444, 4;
        create_qp_start_hint: u32 = 0x448, 24;
        ats: bool = 0x461, 1;
        cross_vhca_rqt: bool = 0x462, 1;
        log_max_uctx: u8 = 0x463, 5;
        crypto: bool = 0x469, 1;
        ipsec_offload: bool = 0x46a, 1;
        log_max_umem: u8 = 0x46b, 5;
        max_num_eqs: u16 = 0x470, 16;
        tls_tx: bool = 0x481, 1;
        tls_rx: bool = 0x482, 1;
        log_max_l2_table: u8 = 0x483, 5;
        log_uar_page_sz: u16 = 0x490, 16;
        device_frequency_mhz: u32 = 0x4c0, 32;
        device_frequency_khz: u32 = 0x4e0, 32;
        num_of_uars_per_page: u32 = 0x520, 32;
        flex_parser_protocols: u32 = 0x540, 32;
        max_geneve_tlv_options: u8 = 0x560, 8;
        max_geneve_tlv_option_data_len: u8 = 0x56b, 5;
        adv_rdma: bool = 0x571, 1;
        adv_virtualization: bool = 0x579, 1;
        log_max_dci_stream_channels: u8 = 0x58b, 5;
        log_max_dci_errored_streams: u8 = 0x593, 5;
        enhanced_cqe_compression: bool = 0x5b0, 1;
        crossing_vhca_mkey: bool = 0x5b2, 1;
        log_max_dek: u8 = 0x5b3, 5;
        mini_cqe_resp_stride_index: bool = 0x5bc, 1;
        cqe_128_always: bool = 0x5bd, 1;
        cqe_compression_128: bool = 0x5be, 1;
        cqe_compression: bool = 0x5bf, 1;
        cqe_compression_timeout: u16 = 0x5c0, 16;
        cqe_compression_max_num: u16 = 0x5d0, 16;
        flex_parser_id_gtpu_dw_0: u8 = 0x5e8, 4;
        tag_matching: bool = 0x5f0, 1;
        rndv_offload_rc: bool = 0x5f1, 1;
        rndv_offload_dc: bool = 0x5f2, 1;
        log_tag_matching_list_sz: u8 = 0x5f3, 5;
        log_max_xrq: u8 = 0x5fb, 5;
        affiliate_nic_vport_criteria: u8 = 0x600, 8;
        native_port_num: u8 = 0x608, 8;
        num_vhca_ports: u8 = 0x610, 8;
        flex_parser_id_gtpu_teid: u8 = 0x618, 4;
        sw_owner_id: bool = 0x61e, 1;
        max_num_of_monitor_counters: u16 = 0x620, 16;
        num_ppcnt_monitor_counters: u16 = 0x630, 16;
        max_num_sf: u16 = 0x640, 16;
        num_q_monitor_counters: u16 = 0x650, 16;
        sf: bool = 0x680, 1;
        sf_set_partition: bool = 0x681, 1;
        log_max_sf: u8 = 0x683, 5;
        apu: bool = 0x688, 1;
        migration: bool = 0x68d, 1;
        log_min_sf_size: u8 = 0x690, 8;
        max_num_sf_partitions: u8 = 0x698, 8;
        uctx_cap: u32 = 0x6a0, 32;
        flex_parser_id_geneve_tlv_option_0: u8 = 0x6c4, 4;
        flex_parser_id_icmp_dw1: u8 = 0x6c8, 4;
        flex_parser_id_icmp_dw0: u8 = 0x6cc, 4;
        flex_parser_id_icmpv6_dw1: u8 = 0x6d0, 4;
        flex_parser_id_icmpv6_dw0: u8 = 0x6d4, 4;
        flex_parser_id_outer_first_mpls_over_gre: u8 = 0x6d8, 4;
        flex_parser_id_outer_first_mpls_over_udp_label: u8 = 0x6dc, 4;
        max_num_match_definer: u16 = 0x6e0, 16;
        sf_base_id: u16 = 0x6f0, 16;
        flex_parser_id_gtpu_dw_2: u8 = 0x700, 4;
        flex_parser_id_gtpu_first_ext_dw_0: u8 = 0x704, 4;
        num_total_dynamic_vf_msix: u32 = 0x708, 24;
        dynamic_msix_table_size: u16 = 0x734, 12;
        min_dynamic_vf_msix_table_size: u8 = 0x74c, 4;
        data_direct: bool = 0x752, 1;
        max_dynamic_vf_msix_table_size: u16 = 0x754, 12;
        log_max_num_header_modify_argument: u8 = 0x763, 5;
        log_header_modify_argument_granularity_offset: u8 = 0x768, 4;
        log_header_modify_argument_granularity: u8 = 0x76c, 4;
        log_header_modify_argument_max_alloc: u8 = 0x773, 5;
        vhca_tunnel_commands: u64 = 0x780, 64;
        match_definer_format_supported: u64 = 0x7c0, 64;
    }
}

layout! {
    /// Ethernet offload capabilities.
    pub struct PerProtocolNetworkingOffloadCaps: "per_protocol_networking_offload_caps", 0x100 {
        csum_cap: bool = 0x0, 1;
        vlan_cap: bool = 0x1, 1;
        lro_cap: bool = 0x2, 1;
        lro_psh_flag: bool = 0x3, 1;
        lro_time_stamp: bool = 0x4, 1;
        wqe_vlan_insert: bool = 0x7, 1;
        self_lb_en_modifiable: bool = 0x8, 1;
        max_lso_cap: u8 = 0xb, 5;
        multi_pkt_send_wqe: u8 = 0x10, 2;
        wqe_inline_mode: u8 = 0x12, 2;
        rss_ind_tbl_cap: u8 = 0x14, 4;
        reg_umr_sq: bool = 0x18, 1;
        scatter_fcs: bool = 0x19, 1;
        enhanced_multi_pkt_send_wqe: bool = 0x1a, 1;
        tunnel_lso_const_out_ip_id: bool = 0x1b, 1;
        tunnel_lro_gre: bool = 0x1c, 1;
        tunnel_lro_vxlan: bool = 0x1d, 1;
        tunnel_stateless_gre: bool = 0x1e, 1;
        tunnel_stateless_vxlan: bool = 0x1f, 1;
        swp: bool = 0x20, 1;
        swp_csum: bool = 0x21, 1;
        swp_lso: bool = 0x22, 1;
        cqe_checksum_full: bool = 0x23, 1;
        tunnel_stateless_geneve_tx: bool = 0x24, 1;
        tunnel_stateless_mpls_over_udp: bool = 0x25, 1;
        tunnel_stateless_mpls_over_gre: bool = 0x26, 1;
        tunnel_stateless_vxlan_gpe: bool = 0x27, 1;
        tunnel_stateless_ipv4_over_vxlan: bool = 0x28, 1;
        tunnel_stateless_ip_over_ip: bool = 0x29, 1;
        insert_trailer: bool = 0x2a, 1;
        tunnel_stateless_ip_over_ip_rx: bool = 0x2c, 1;
        tunnel_stateless_ip_over_ip_tx: bool = 0x2d, 1;
        max_vxlan_udp_ports: u8 = 0x30, 8;
        swp_csum_l4_partial: bool = 0x38, 1;
        max_geneve_opt_len: bool = 0x3e, 1;
        tunnel_stateless_geneve_rx: bool = 0x3f, 1;
        lro_min_mss_size: u16 = 0x50, 16;
        lro_timer_supported_periods: bytes(16) = 0x180;
    }
}

layout! {
    /// Atomic capabilities.
    pub struct AtomicCaps: "atomic_caps", 0x100 {
        atomic_req_8b_endianness_mode: u8 = 0x40, 2;
        supported_atomic_req_8b_endianness_mode_1: bool = 0x46, 1;
        atomic_operations: u16 = 0x90, 16;
        atomic_size_qp: u16 = 0xb0, 16;
        atomic_size_dc: u16 = 0xd0, 16;
    }
}

layout! {
    /// RoCE capabilities.
    pub struct RoceCap: "roce_cap", 0x100 {
        roce_apm: bool = 0x0, 1;
        sw_r_roce_src_udp_port: bool = 0x4, 1;
        fl_rc_qp_when_roce_disabled: bool = 0x5, 1;
        fl_rc_qp_when_roce_enabled: bool = 0x6, 1;
        roce_cc_general: bool = 0x7, 1;
        qp_ooo_transmit_default: bool = 0x8, 1;
        qp_ts_format: u8 = 0x1e, 2;
        l3_type: u8 = 0x8c, 4;
        roce_version: u8 = 0x98, 8;
        r_roce_dest_udp_port: u16 = 0xb0, 16;
        r_roce_max_src_udp_port: u16 = 0xc0, 16;
        r_roce_min_src_udp_port: u16 = 0xd0, 16;
        roce_address_table_size: u16 = 0xf0, 16;
    }
}

layout! {
    /// Flow table capabilities of the NIC.
    pub struct FlowTableNicCap: "flow_table_nic_cap", 0x1000 {
        nic_rx_multi_path_tirs: bool = 0x0, 1;
        nic_rx_multi_path_tirs_fts: bool = 0x1, 1;
        allow_sniffer_and_nic_rx_shared_tir: bool = 0x2, 1;
        sw_owner_reformat_supported: bool = 0x7, 1;
        encap_general_header: bool = 0x20, 1;
        log_max_packet_reformat_context: u8 = 0x2b, 5;
        max_encap_header_size: u16 = 0x36, 10;
        flow_table_properties_nic_receive: layout(FlowTablePropLayout) = 0x200;
        flow_table_properties_nic_receive_rdma: layout(FlowTablePropLayout) = 0x400;
        flow_table_properties_nic_receive_sniffer: layout(FlowTablePropLayout) = 0x600;
        flow_table_properties_nic_transmit: layout(FlowTablePropLayout) = 0x800;
        flow_table_properties_nic_transmit_rdma: layout(FlowTablePropLayout) = 0xa00;
        flow_table_properties_nic_transmit_sniffer: layout(FlowTablePropLayout) = 0xc00;
        ft_field_support_2_nic_receive: bytes(16) = 0x1400;
        ft_field_support_2_nic_receive_rdma: bytes(16) = 0x1500;
        ft_field_support_2_nic_transmit_rdma: bytes(16) = 0x1800;
        sw_steering_nic_rx_action_drop_icm_address: u64 = 0x2000, 64;
        sw_steering_nic_tx_action_drop_icm_address: u64 = 0x2040, 64;
        sw_steering_nic_tx_action_allow_icm_address: u64 = 0x2080, 64;
    }
}

layout! {
    /// Properties of one kind of flow table.
    pub struct FlowTablePropLayout: "flow_table_prop_layout", 0x40 {
        ft_support: bool = 0x0, 1;
        flow_counter: bool = 0x2, 1;
        flow_modify_en: bool = 0x3, 1;
        modify_root: bool = 0x4, 1;
        identified_miss_table_mode: bool = 0x5, 1;
        flow_table_modify: bool = 0x6, 1;
        reformat: bool = 0x7, 1;
        decap: bool = 0x8, 1;
        reset_root_to_default: bool = 0x9, 1;
        pop_vlan: bool = 0xa, 1;
        push_vlan: bool = 0xb, 1;
        pop_vlan_2: bool = 0xd, 1;
        push_vlan_2: bool = 0xe, 1;
        reformat_and_vlan_action: bool = 0xf, 1;
        sw_owner: bool = 0x11, 1;
        reformat_l3_tunnel_to_l2: bool = 0x12, 1;
        reformat_l2_to_l3_tunnel: bool = 0x13, 1;
        reformat_and_modify_action: bool = 0x14, 1;
        ignore_flow_level: bool = 0x15, 1;
        table_miss_action_domain: bool = 0x17, 1;
        termination_table: bool = 0x18, 1;
        reformat_and_fwd_to_table: bool = 0x19, 1;
        forward_vhca_rx: bool = 0x1a, 1;
        ipsec_encrypt: bool = 0x1c, 1;
        ipsec_decrypt: bool = 0x1d, 1;
        sw_owner_v2: bool = 0x1e, 1;
        termination_table_raw_traffic: bool = 0x20, 1;
        log_max_ft_size: u8 = 0x22, 6;
        log_max_modify_header_context: u8 = 0x28, 8;
        max_modify_header_actions: u8 = 0x30, 8;
        max_ft_level: u8 = 0x38, 8;
        reformat_add_esp_trasport: bool = 0x40, 1;
        reformat_l2_to_l3_esp_tunnel: bool = 0x41, 1;
        reformat_add_esp_transport_over_udp: bool = 0x42, 1;
        reformat_del_esp_trasport: bool = 0x43, 1;
        reformat_l3_esp_tunnel_to_l2: bool = 0x44, 1;
        reformat_del_esp_transport_over_udp: bool = 0x45, 1;
        execute_aso: bool = 0x46, 1;
        reformat_l2_to_l3_psp_tunnel: bool = 0x60, 1;
        reformat_l3_psp_tunnel_to_l2: bool = 0x61, 1;
        reformat_insert: bool = 0x62, 1;
        reformat_remove: bool = 0x63, 1;
        macsec_encrypt: bool = 0x64, 1;
        macsec_decrypt: bool = 0x65, 1;
        psp_encrypt: bool = 0x66, 1;
        psp_decrypt: bool = 0x67, 1;
        reformat_add_macsec: bool = 0x68, 1;
        reformat_remove_macsec: bool = 0x69, 1;
        reparse: bool = 0x6a, 1;
        cross_vhca_object: bool = 0x6c, 1;
        reformat_l2_to_l3_audp_tunnel: bool = 0x6d, 1;
        reformat_l3_audp_tunnel_to_l2: bool = 0x6e, 1;
        ignore_flow_level_rtc_valid: bool = 0x6f, 1;
        reformat_del_psp_transport: bool = 0x77, 1;
        log_max_ft_num: u8 = 0x78, 8;
        log_max_flow_counter: u8 = 0x90, 8;
        log_max_destination: u8 = 0x98, 8;
        log_max_flow: u8 = 0xb8, 8;
        ft_field_support: bytes(16) = 0x100;
        ft_field_bitmask_support: bytes(16) = 0x180;
    }
}

layout! {
    /// On-demand paging capabilities.
    pub struct OdpCap: "odp_cap", 0x100 {
        transport_page_fault_scheme_cap: layout(OdpSchemeCap) = 0x0;
        memory_page_fault_scheme_cap: layout(OdpSchemeCap) = 0x200;
        mem_page_fault: bool = 0x600, 1;
    }
}

layout! {
    /// Capabilities of quality of service.
    pub struct QosCap: "qos_cap", 0x100 {
        packet_pacing: bool = 0x0, 1;
        esw_scheduling: bool = 0x1, 1;
        esw_bw_share: bool = 0x2, 1;
        esw_rate_limit: bool = 0x3, 1;
        packet_pacing_burst_bound: bool = 0x5, 1;
        packet_pacing_typical_size: bool = 0x6, 1;
        nic_sq_scheduling: bool = 0x8, 1;
        nic_bw_share: bool = 0x9, 1;
        nic_rate_limit: bool = 0xa, 1;
        packet_pacing_uid: bool = 0xb, 1;
        log_esw_max_sched_depth: u8 = 0xc, 4;
        packet_pacing_req_ud: bool = 0x22, 1;
        packet_pacing_req_uc: bool = 0x23, 1;
        esw_cross_esw_sched: bool = 0x29, 1;
        log_max_qos_nic_queue_group: u8 = 0x2b, 5;
        packet_pacing_max_rate: u32 = 0x40, 32;
        packet_pacing_min_rate: u32 = 0x60, 32;
        log_esw_max_rate_limit: u8 = 0x8b, 5;
        packet_pacing_rate_table_size: u16 = 0x90, 16;
        esw_element_type: u16 = 0xa0, 16;
        esw_tsar_type: u16 = 0xb0, 16;
        max_qos_para_vport: u16 = 0xd0, 16;
        max_tsar_bw_share: u32 = 0xe0, 32;
        nic_element_type: u16 = 0x100, 16;
        nic_tsar_type: u16 = 0x110, 16;
        log_meter_aso_granularity: u8 = 0x123, 5;
        log_meter_aso_max_alloc: u8 = 0x12b, 5;
        log_max_num_meter_aso: u8 = 0x133, 5;
    }
}

layout! {
    /// On-demand paging capabilities of one scheme.
    pub struct OdpSchemeCap: "odp_scheme_cap", 0x40 {
        sig: bool = 0x40, 1;
        page_prefetch: bool = 0x45, 1;
        rc_odp_caps: bytes(4) = 0x80;
        uc_odp_caps: bytes(4) = 0xa0;
        ud_odp_caps: bytes(4) = 0xc0;
        xrc_odp_caps: bytes(4) = 0xe0;
        dc_odp_caps: bytes(4) = 0x100;
    }
}

crate::layout::layouts!(
    QueryHcaCapIn,
    QueryHcaCapOut,
    SetHcaCapIn,
    SetHcaCapOut,
    CmdHcaCap,
    PerProtocolNetworkingOffloadCaps,
    AtomicCaps,
    RoceCap,
    QosCap,
    FlowTableNicCap,
    FlowTablePropLayout,
    OdpCap,
    OdpSchemeCap
);
