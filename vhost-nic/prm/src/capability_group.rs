//! Groups of capabilities beside the general one.

use crate::layout::layout;

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
    PerProtocolNetworkingOffloadCaps,
    AtomicCaps,
    RoceCap,
    QosCap,
    FlowTableNicCap,
    FlowTablePropLayout,
    OdpCap,
    OdpSchemeCap
);
