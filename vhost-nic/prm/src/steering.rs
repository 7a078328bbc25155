//! Flow tables, groups, entries and their counters.

use crate::layout::layout;

layout! {
    /// Input of CREATE_FLOW_TABLE.
    pub struct CreateFlowTableIn: "create_flow_table_in", 0x40 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        table_type: u8 = 0x80, 8;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        flow_table_context: layout(FlowTableContext) = 0xc0;
    }
}

layout! {
    /// Output of CREATE_FLOW_TABLE.
    pub struct CreateFlowTableOut: "create_flow_table_out", 0x10 {
        status: u8 = 0x0, 8;
        icm_address_63_40: u32 = 0x8, 24;
        syndrome: u32 = 0x20, 32;
        icm_address_39_32: u8 = 0x40, 8;
        table_id: u32 = 0x48, 24;
        icm_address_31_0: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of MODIFY_FLOW_TABLE.
    pub struct ModifyFlowTableIn: "modify_flow_table_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        modify_field_select: u16 = 0x70, 16;
        table_type: u8 = 0x80, 8;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
        flow_table_context: layout(FlowTableContext) = 0xc0;
    }
}

layout! {
    /// Output of MODIFY_FLOW_TABLE.
    pub struct ModifyFlowTableOut: "modify_flow_table_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_FLOW_TABLE.
    pub struct DestroyFlowTableIn: "destroy_flow_table_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        table_type: u8 = 0x80, 8;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
    }
}

layout! {
    /// Output of DESTROY_FLOW_TABLE.
    pub struct DestroyFlowTableOut: "destroy_flow_table_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_FLOW_TABLE.
    pub struct QueryFlowTableIn: "query_flow_table_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        table_type: u8 = 0x80, 8;
        table_id: u32 = 0xa8, 24;
    }
}

layout! {
    /// Output of QUERY_FLOW_TABLE.
    pub struct QueryFlowTableOut: "query_flow_table_out", 0x40 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        flow_table_context: layout(FlowTableContext) = 0xc0;
    }
}

layout! {
    /// Input of SET_FLOW_TABLE_ROOT.
    pub struct SetFlowTableRootIn: "set_flow_table_root_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        eswitch_owner_vhca_id: u16 = 0x70, 16;
        table_type: u8 = 0x80, 8;
        table_of_other_vport: bool = 0x8f, 1;
        table_vport_number: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
        underlay_qpn: u32 = 0xc8, 24;
        table_eswitch_owner_vhca_id_valid: bool = 0xe0, 1;
        table_eswitch_owner_vhca_id: u16 = 0xf0, 16;
    }
}

layout! {
    /// Output of SET_FLOW_TABLE_ROOT.
    pub struct SetFlowTableRootOut: "set_flow_table_root_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of CREATE_FLOW_GROUP.
    pub struct CreateFlowGroupIn: "create_flow_group_in", 0x400 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        table_type: u8 = 0x80, 8;
        group_type: u8 = 0x8c, 4;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
        source_eswitch_owner_vhca_id_valid: bool = 0xc0, 1;
        start_flow_index: u32 = 0xe0, 32;
        end_flow_index: u32 = 0x120, 32;
        match_definer_id: u16 = 0x150, 16;
        match_criteria_enable: u8 = 0x1f8, 8;
        match_criteria: layout(FteMatchParam) = 0x200;
    }
}

layout! {
    /// Output of CREATE_FLOW_GROUP.
    pub struct CreateFlowGroupOut: "create_flow_group_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        group_id: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DESTROY_FLOW_GROUP.
    pub struct DestroyFlowGroupIn: "destroy_flow_group_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        table_type: u8 = 0x80, 8;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
        group_id: u32 = 0xc0, 32;
    }
}

layout! {
    /// Output of DESTROY_FLOW_GROUP.
    pub struct DestroyFlowGroupOut: "destroy_flow_group_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_FLOW_GROUP.
    pub struct QueryFlowGroupIn: "query_flow_group_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        table_type: u8 = 0x80, 8;
        table_id: u32 = 0xa8, 24;
        group_id: u32 = 0xc0, 32;
    }
}

layout! {
    /// Output of QUERY_FLOW_GROUP.
    pub struct QueryFlowGroupOut: "query_flow_group_out", 0x400 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        start_flow_index: u32 = 0xe0, 32;
        end_flow_index: u32 = 0x120, 32;
        match_criteria_enable: u8 = 0x1f8, 8;
        match_criteria: layout(FteMatchParam) = 0x200;
    }
}

layout! {
    /// Input of SET_FTE.
    pub struct SetFteIn: "set_fte_in", 0x340 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        table_type: u8 = 0x80, 8;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
        ignore_flow_level: bool = 0xc0, 1;
        modify_enable_mask: u8 = 0xd8, 8;
        flow_index: u32 = 0x100, 32;
        flow_context: layout(FlowContext) = 0x200;
    }
}

layout! {
    /// Output of SET_FTE.
    pub struct SetFteOut: "set_fte_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DELETE_FTE.
    pub struct DeleteFteIn: "delete_fte_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        other_eswitch: bool = 0x41, 1;
        vport_number: u16 = 0x50, 16;
        table_type: u8 = 0x80, 8;
        eswitch_owner_vhca_id: u16 = 0x90, 16;
        table_id: u32 = 0xa8, 24;
        flow_index: u32 = 0x100, 32;
    }
}

layout! {
    /// Output of DELETE_FTE.
    pub struct DeleteFteOut: "delete_fte_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_FTE.
    pub struct QueryFteIn: "query_fte_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        table_type: u8 = 0x80, 8;
        table_id: u32 = 0xa8, 24;
        flow_index: u32 = 0x100, 32;
    }
}

layout! {
    /// Output of QUERY_FTE.
    pub struct QueryFteOut: "query_fte_out", 0x340 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        flow_context: layout(FlowContext) = 0x200;
    }
}

layout! {
    /// Input of ALLOC_FLOW_COUNTER.
    pub struct AllocFlowCounterIn: "alloc_flow_counter_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        flow_counter_bulk_log_size: u8 = 0x73, 5;
        flow_counter_bulk: u8 = 0x78, 8;
    }
}

layout! {
    /// Output of ALLOC_FLOW_COUNTER.
    pub struct AllocFlowCounterOut: "alloc_flow_counter_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        flow_counter_id: u32 = 0x40, 32;
    }
}

layout! {
    /// Input of DEALLOC_FLOW_COUNTER.
    pub struct DeallocFlowCounterIn: "dealloc_flow_counter_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        flow_counter_id: u32 = 0x40, 32;
    }
}

layout! {
    /// Output of DEALLOC_FLOW_COUNTER.
    pub struct DeallocFlowCounterOut: "dealloc_flow_counter_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_FLOW_COUNTER.
    pub struct QueryFlowCounterIn: "query_flow_counter_in", 0x20 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        clear: bool = 0xc0, 1;
        num_of_counters: u16 = 0xd0, 16;
        flow_counter_id: u32 = 0xe0, 32;
    }
}

layout! {
    /// Output of QUERY_FLOW_COUNTER.
    pub struct QueryFlowCounterOut: "query_flow_counter_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Flow table context.
    pub struct FlowTableContext: "flow_table_context", 0x28 {
        reformat_en: bool = 0x0, 1;
        decap_en: bool = 0x1, 1;
        sw_owner: bool = 0x2, 1;
        termination_table: bool = 0x3, 1;
        table_miss_action: u8 = 0x4, 4;
        level: u8 = 0x8, 8;
        rtc_valid: bool = 0x10, 1;
        log_size: u8 = 0x18, 8;
        table_miss_id: u32 = 0x28, 24;
        lag_master_next_table_id: u32 = 0x48, 24;
        sws: bytes(16) = 0xc0;
        hws: bytes(16) = 0xc0;
    }
}

layout! {
    /// Context of a flow table entry.
    pub struct FlowContext: "flow_context", 0x300 {
        push_vlan: bytes(4) = 0x0;
        group_id: u32 = 0x20, 32;
        flow_tag: u32 = 0x48, 24;
        action: u16 = 0x70, 16;
        extended_destination: bool = 0x80, 1;
        uplink_hairpin_en: bool = 0x81, 1;
        flow_source: u8 = 0x82, 2;
        encrypt_decrypt_type: u8 = 0x84, 4;
        destination_list_size: u32 = 0x88, 24;
        flow_counter_list_size: u32 = 0xa8, 24;
        packet_reformat_id: u32 = 0xc0, 32;
        modify_header_id: u32 = 0xe0, 32;
        push_vlan_2: bytes(4) = 0x100;
        encrypt_decrypt_obj_id: u32 = 0x120, 32;
        match_value: layout(FteMatchParam) = 0x200;
        execute_aso: bytes(32) = 0x1200;
    }
}

layout! {
    /// Destination of a flow table entry.
    pub struct DestFormatStruct: "dest_format_struct", 0x8 {
        destination_type: u8 = 0x0, 8;
        destination_id: u32 = 0x8, 24;
        destination_eswitch_owner_vhca_id_valid: bool = 0x20, 1;
        packet_reformat: bool = 0x21, 1;
        destination_table_type: u8 = 0x28, 8;
        destination_eswitch_owner_vhca_id: u16 = 0x30, 16;
    }
}

layout! {
    /// Match parameters of a flow table entry.
    pub struct FteMatchParam: "fte_match_param", 0x200 {
        outer_headers: layout(FteMatchSetLyr24) = 0x0;
        misc_parameters: layout(FteMatchSetMisc) = 0x200;
        inner_headers: layout(FteMatchSetLyr24) = 0x400;
        misc_parameters_2: bytes(64) = 0x600;
        misc_parameters_3: bytes(64) = 0x800;
        misc_parameters_4: bytes(64) = 0xa00;
        misc_parameters_5: bytes(64) = 0xc00;
        misc_parameters_6: bytes(64) = 0xe00;
    }
}

layout! {
    /// Match on the headers of layers 2 to 4.
    pub struct FteMatchSetLyr24: "fte_match_set_lyr_2_4", 0x40 {
        smac_47_16: u32 = 0x0, 32;
        smac_15_0: u16 = 0x20, 16;
        ethertype: u16 = 0x30, 16;
        dmac_47_16: u32 = 0x40, 32;
        dmac_15_0: u16 = 0x60, 16;
        first_prio: u8 = 0x70, 3;
        first_cfi: bool = 0x73, 1;
        first_vid: u16 = 0x74, 12;
        ip_protocol: u8 = 0x80, 8;
        ip_dscp: u8 = 0x88, 6;
        ip_ecn: u8 = 0x8e, 2;
        cvlan_tag: bool = 0x90, 1;
        svlan_tag: bool = 0x91, 1;
        frag: bool = 0x92, 1;
        ip_version: u8 = 0x93, 4;
        tcp_flags: u16 = 0x97, 9;
        tcp_sport: u16 = 0xa0, 16;
        tcp_dport: u16 = 0xb0, 16;
        l4_type: u8 = 0xc0, 2;
        l4_type_ext: u8 = 0xc2, 4;
        ipv4_ihl: u8 = 0xd0, 4;
        ttl_hoplimit: u8 = 0xd8, 8;
        udp_sport: u16 = 0xe0, 16;
        udp_dport: u16 = 0xf0, 16;
        src_ipv4_src_ipv6: bytes(16) = 0x100;
        dst_ipv4_dst_ipv6: bytes(16) = 0x180;
    }
}

layout! {
    /// Match on miscellaneous parameters.
    pub struct FteMatchSetMisc: "fte_match_set_misc", 0x40 {
        gre_c_present: bool = 0x0, 1;
        gre_k_present: bool = 0x2, 1;
        gre_s_present: bool = 0x3, 1;
        source_vhca_port: u8 = 0x4, 4;
        source_sqn: u32 = 0x8, 24;
        source_eswitch_owner_vhca_id: u16 = 0x20, 16;
        source_port: u16 = 0x30, 16;
        outer_second_prio: u8 = 0x40, 3;
        outer_second_cfi: bool = 0x43, 1;
        outer_second_vid: u16 = 0x44, 12;
        inner_second_prio: u8 = 0x50, 3;
        inner_second_cfi: bool = 0x53, 1;
        inner_second_vid: u16 = 0x54, 12;
        outer_second_cvlan_tag: bool = 0x60, 1;
        inner_second_cvlan_tag: bool = 0x61, 1;
        outer_second_svlan_tag: bool = 0x62, 1;
        inner_second_svlan_tag: bool = 0x63, 1;
        gre_protocol: u16 = 0x70, 16;
        gre_key: bytes(4) = 0x80;
        vxlan_vni: u32 = 0xa0, 24;
        bth_opcode: u8 = 0xb8, 8;
        geneve_vni: u32 = 0xc0, 24;
        geneve_tlv_option_0_exist: bool = 0xde, 1;
        geneve_oam: bool = 0xdf, 1;
        outer_ipv6_flow_label: u32 = 0xec, 20;
        inner_ipv6_flow_label: u32 = 0x10c, 20;
        geneve_opt_len: u8 = 0x12a, 6;
        geneve_protocol_type: u16 = 0x130, 16;
        bth_dst_qp: u32 = 0x148, 24;
        inner_esp_spi: u32 = 0x160, 32;
        outer_esp_spi: u32 = 0x180, 32;
    }
}

layout! {
    /// Packets and octets.
    pub struct TrafficCounter: "traffic_counter", 0x10 {
        packets: u64 = 0x0, 64;
        octets: u64 = 0x40, 64;
    }
}

crate::layout::layouts!(
    CreateFlowTableIn,
    CreateFlowTableOut,
    ModifyFlowTableIn,
    ModifyFlowTableOut,
    DestroyFlowTableIn,
    DestroyFlowTableOut,
    QueryFlowTableIn,
    QueryFlowTableOut,
    SetFlowTableRootIn,
    SetFlowTableRootOut,
    CreateFlowGroupIn,
    CreateFlowGroupOut,
    DestroyFlowGroupIn,
    DestroyFlowGroupOut,
    QueryFlowGroupIn,
    QueryFlowGroupOut,
    SetFteIn,
    SetFteOut,
    DeleteFteIn,
    DeleteFteOut,
    QueryFteIn,
    QueryFteOut,
    AllocFlowCounterIn,
    AllocFlowCounterOut,
    DeallocFlowCounterIn,
    DeallocFlowCounterOut,
    QueryFlowCounterIn,
    QueryFlowCounterOut,
    FlowTableContext,
    FlowContext,
    DestFormatStruct,
    FteMatchParam,
    FteMatchSetLyr24,
    FteMatchSetMisc,
    TrafficCounter
);
