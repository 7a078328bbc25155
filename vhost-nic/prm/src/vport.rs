//! Virtual ports, RoCE addresses and the counters of ports and queues.

use crate::layout::layout;
use crate::steering::TrafficCounter;

layout! {
    /// Input of QUERY_NIC_VPORT_CONTEXT.
    pub struct QueryNicVportContextIn: "query_nic_vport_context_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        vport_number: u16 = 0x50, 16;
        allowed_list_type: u8 = 0x65, 3;
    }
}

layout! {
    /// Output of QUERY_NIC_VPORT_CONTEXT.
    pub struct QueryNicVportContextOut: "query_nic_vport_context_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        nic_vport_context: layout(NicVportContext) = 0x80;
    }
}

layout! {
    /// Input of MODIFY_NIC_VPORT_CONTEXT.
    pub struct ModifyNicVportContextIn: "modify_nic_vport_context_in", 0x200 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        vport_number: u16 = 0x50, 16;
        field_select: layout(ModifyNicVportFieldSelect) = 0x60;
        nic_vport_context: layout(NicVportContext) = 0x800;
    }
}

layout! {
    /// Output of MODIFY_NIC_VPORT_CONTEXT.
    pub struct ModifyNicVportContextOut: "modify_nic_vport_context_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_VPORT_STATE.
    pub struct QueryVportStateIn: "query_vport_state_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        vport_number: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of QUERY_VPORT_STATE.
    pub struct QueryVportStateOut: "query_vport_state_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        max_tx_speed: u16 = 0x60, 16;
        admin_state: u8 = 0x78, 4;
        state: u8 = 0x7c, 4;
    }
}

layout! {
    /// Input of MODIFY_VPORT_STATE.
    pub struct ModifyVportStateIn: "modify_vport_state_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        vport_number: u16 = 0x50, 16;
        max_tx_speed: u16 = 0x60, 16;
        ingress_connect: bool = 0x70, 1;
        egress_connect: bool = 0x71, 1;
        ingress_connect_valid: bool = 0x72, 1;
        egress_connect_valid: bool = 0x73, 1;
        admin_state: u8 = 0x78, 4;
    }
}

layout! {
    /// Output of MODIFY_VPORT_STATE.
    pub struct ModifyVportStateOut: "modify_vport_state_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_VPORT_COUNTER.
    pub struct QueryVportCounterIn: "query_vport_counter_in", 0x20 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        port_num: u8 = 0x4c, 4;
        vport_number: u16 = 0x50, 16;
        clear: bool = 0xc0, 1;
    }
}

layout! {
    /// Output of QUERY_VPORT_COUNTER.
    pub struct QueryVportCounterOut: "query_vport_counter_out", 0x210 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        received_errors: layout(TrafficCounter) = 0x80;
        transmit_errors: layout(TrafficCounter) = 0x100;
        received_ib_unicast: layout(TrafficCounter) = 0x180;
        transmitted_ib_unicast: layout(TrafficCounter) = 0x200;
        received_ib_multicast: layout(TrafficCounter) = 0x280;
        transmitted_ib_multicast: layout(TrafficCounter) = 0x300;
        received_eth_broadcast: layout(TrafficCounter) = 0x380;
        transmitted_eth_broadcast: layout(TrafficCounter) = 0x400;
        received_eth_unicast: layout(TrafficCounter) = 0x480;
        transmitted_eth_unicast: layout(TrafficCounter) = 0x500;
        received_eth_multicast: layout(TrafficCounter) = 0x580;
        transmitted_eth_multicast: layout(TrafficCounter) = 0x600;
        local_loopback: layout(TrafficCounter) = 0x680;
    }
}

layout! {
    /// Input of QUERY_HCA_VPORT_PKEY.
    pub struct QueryHcaVportPkeyIn: "query_hca_vport_pkey_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        port_num: u8 = 0x4c, 4;
        vport_number: u16 = 0x50, 16;
        pkey_index: u16 = 0x70, 16;
    }
}

layout! {
    /// Output of QUERY_HCA_VPORT_PKEY.
    pub struct QueryHcaVportPkeyOut: "query_hca_vport_pkey_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_HCA_VPORT_GID.
    pub struct QueryHcaVportGidIn: "query_hca_vport_gid_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        port_num: u8 = 0x4c, 4;
        vport_number: u16 = 0x50, 16;
        gid_index: u16 = 0x70, 16;
    }
}

layout! {
    /// Output of QUERY_HCA_VPORT_GID.
    pub struct QueryHcaVportGidOut: "query_hca_vport_gid_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        gids_num: u16 = 0x60, 16;
    }
}

layout! {
    /// Input of QUERY_HCA_VPORT_CONTEXT.
    pub struct QueryHcaVportContextIn: "query_hca_vport_context_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        port_num: u8 = 0x4c, 4;
        vport_number: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of QUERY_HCA_VPORT_CONTEXT.
    pub struct QueryHcaVportContextOut: "query_hca_vport_context_out", 0x210 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        hca_vport_context: layout(HcaVportContext) = 0x80;
    }
}

layout! {
    /// Input of SET_ROCE_ADDRESS.
    pub struct SetRoceAddressIn: "set_roce_address_in", 0x30 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        roce_address_index: u16 = 0x40, 16;
        vhca_port_num: u8 = 0x5c, 4;
        roce_address: layout(RoceAddrLayout) = 0x80;
    }
}

layout! {
    /// Output of SET_ROCE_ADDRESS.
    pub struct SetRoceAddressOut: "set_roce_address_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_ROCE_ADDRESS.
    pub struct QueryRoceAddressIn: "query_roce_address_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        roce_address_index: u16 = 0x40, 16;
        vhca_port_num: u8 = 0x5c, 4;
    }
}

layout! {
    /// Output of QUERY_ROCE_ADDRESS.
    pub struct QueryRoceAddressOut: "query_roce_address_out", 0x30 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        roce_address: layout(RoceAddrLayout) = 0x80;
    }
}

layout! {
    /// Input of ALLOC_Q_COUNTER.
    pub struct AllocQCounterIn: "alloc_q_counter_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of ALLOC_Q_COUNTER.
    pub struct AllocQCounterOut: "alloc_q_counter_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        counter_set_id: u8 = 0x58, 8;
    }
}

layout! {
    /// Input of DEALLOC_Q_COUNTER.
    pub struct DeallocQCounterIn: "dealloc_q_counter_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        counter_set_id: u8 = 0x58, 8;
    }
}

layout! {
    /// Output of DEALLOC_Q_COUNTER.
    pub struct DeallocQCounterOut: "dealloc_q_counter_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_Q_COUNTER.
    pub struct QueryQCounterIn: "query_q_counter_in", 0x20 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        vport_number: u16 = 0x50, 16;
        clear: bool = 0xc0, 1;
        aggregate: bool = 0xc1, 1;
        counter_set_id: u8 = 0xf8, 8;
    }
}

layout! {
    /// Output of QUERY_Q_COUNTER.
    pub struct QueryQCounterOut: "query_q_counter_out", 0x100 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rx_write_requests: u32 = 0x80, 32;
        rx_read_requests: u32 = 0xc0, 32;
        rx_atomic_requests: u32 = 0x100, 32;
        rx_dct_connect: u32 = 0x140, 32;
        out_of_buffer: u32 = 0x180, 32;
        out_of_sequence: u32 = 0x1c0, 32;
        duplicate_request: u32 = 0x200, 32;
        rnr_nak_retry_err: u32 = 0x240, 32;
        packet_seq_err: u32 = 0x280, 32;
        implied_nak_seq_err: u32 = 0x2c0, 32;
        local_ack_timeout_err: u32 = 0x300, 32;
        req_rnr_retries_exceeded: u32 = 0x380, 32;
        resp_local_length_error: u32 = 0x3c0, 32;
        req_local_length_error: u32 = 0x3e0, 32;
        resp_local_qp_error: u32 = 0x400, 32;
        local_operation_error: u32 = 0x420, 32;
        resp_local_protection: u32 = 0x440, 32;
        req_local_protection: u32 = 0x460, 32;
        resp_cqe_error: u32 = 0x480, 32;
        req_cqe_error: u32 = 0x4a0, 32;
        req_mw_binding: u32 = 0x4c0, 32;
        req_bad_response: u32 = 0x4e0, 32;
        req_remote_invalid_request: u32 = 0x500, 32;
        resp_remote_invalid_request: u32 = 0x520, 32;
        req_remote_access_errors: u32 = 0x540, 32;
        resp_remote_access_errors: u32 = 0x560, 32;
        req_remote_operation_errors: u32 = 0x580, 32;
        req_transport_retries_exceeded: u32 = 0x5a0, 32;
        cq_overflow: u32 = 0x5c0, 32;
        resp_cqe_flush_error: u32 = 0x5e0, 32;
        req_cqe_flush_error: u32 = 0x600, 32;
        roce_adp_retrans: u32 = 0x640, 32;
        roce_adp_retrans_to: u32 = 0x660, 32;
        roce_slow_restart: u32 = 0x680, 32;
        roce_slow_restart_cnps: u32 = 0x6a0, 32;
        roce_slow_restart_trans: u32 = 0x6c0, 32;
    }
}

layout! {
    /// Input of SET_L2_TABLE_ENTRY.
    pub struct SetL2TableEntryIn: "set_l2_table_entry_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        table_index: u32 = 0xa8, 24;
        silent_mode_valid: bool = 0xf0, 1;
        silent_mode: bool = 0xf1, 1;
        vlan_valid: bool = 0xf3, 1;
        vlan: u16 = 0xf4, 12;
        mac_address: layout(MacAddressLayout) = 0x100;
    }
}

layout! {
    /// Output of SET_L2_TABLE_ENTRY.
    pub struct SetL2TableEntryOut: "set_l2_table_entry_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_L2_TABLE_ENTRY.
    pub struct QueryL2TableEntryIn: "query_l2_table_entry_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        silent_mode_query: bool = 0x80, 1;
        table_index: u32 = 0xa8, 24;
    }
}

layout! {
    /// Output of QUERY_L2_TABLE_ENTRY.
    pub struct QueryL2TableEntryOut: "query_l2_table_entry_out", 0x40 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        silent_mode: bool = 0xf1, 1;
        vlan_valid: bool = 0xf3, 1;
        vlan: u16 = 0xf4, 12;
        mac_address: layout(MacAddressLayout) = 0x100;
    }
}

layout! {
    /// Input of DELETE_L2_TABLE_ENTRY.
    pub struct DeleteL2TableEntryIn: "delete_l2_table_entry_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        table_index: u32 = 0xa8, 24;
    }
}

layout! {
    /// Output of DELETE_L2_TABLE_ENTRY.
    pub struct DeleteL2TableEntryOut: "delete_l2_table_entry_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Context of a NIC vport.
    pub struct NicVportContext: "nic_vport_context", 0x100 {
        min_wqe_inline_mode: u8 = 0x5, 3;
        disable_mc_local_lb: bool = 0x1d, 1;
        disable_uc_local_lb: bool = 0x1e, 1;
        roce_en: bool = 0x1f, 1;
        arm_change_event: bool = 0x20, 1;
        event_on_mtu: bool = 0x3b, 1;
        event_on_promisc_change: bool = 0x3c, 1;
        event_on_vlan_change: bool = 0x3d, 1;
        event_on_mc_address_change: bool = 0x3e, 1;
        event_on_uc_address_change: bool = 0x3f, 1;
        vhca_id_type: bool = 0x40, 1;
        affiliation_criteria: u8 = 0x4c, 4;
        affiliated_vhca_id: u16 = 0x50, 16;
        sd_group: u8 = 0x101, 3;
        sd_group_size: u8 = 0x108, 8;
        mtu: u16 = 0x130, 16;
        system_image_guid: u64 = 0x140, 64;
        port_guid: u64 = 0x180, 64;
        node_guid: u64 = 0x1c0, 64;
        qkey_violation_counter: u16 = 0x340, 16;
        promisc_uc: bool = 0x780, 1;
        promisc_mc: bool = 0x781, 1;
        promisc_all: bool = 0x782, 1;
        allowed_list_type: u8 = 0x785, 3;
        allowed_list_size: u16 = 0x790, 16;
        permanent_address: layout(MacAddressLayout) = 0x7a0;
    }
}

layout! {
    /// Fields that MODIFY_NIC_VPORT_CONTEXT changes.
    pub struct ModifyNicVportFieldSelect: "modify_nic_vport_field_select", 0x4 {
        affiliation: bool = 0x12, 1;
        disable_uc_local_lb: bool = 0x14, 1;
        disable_mc_local_lb: bool = 0x15, 1;
        node_guid: bool = 0x16, 1;
        port_guid: bool = 0x17, 1;
        min_inline: bool = 0x18, 1;
        mtu: bool = 0x19, 1;
        change_event: bool = 0x1a, 1;
        promisc: bool = 0x1b, 1;
        permanent_address: bool = 0x1c, 1;
        addresses_list: bool = 0x1d, 1;
        roce_en: bool = 0x1e, 1;
    }
}

layout! {
    /// Context of an HCA vport.
    pub struct HcaVportContext: "hca_vport_context", 0x200 {
        field_select: u32 = 0x0, 32;
        sm_virt_aware: bool = 0x100, 1;
        has_smi: bool = 0x101, 1;
        has_raw: bool = 0x102, 1;
        grh_required: bool = 0x103, 1;
        num_port_plane: u8 = 0x108, 8;
        port_physical_state: u8 = 0x110, 4;
        vport_state_policy: u8 = 0x114, 4;
        port_state: u8 = 0x118, 4;
        vport_state: u8 = 0x11c, 4;
        system_image_guid: u64 = 0x140, 64;
        port_guid: u64 = 0x180, 64;
        node_guid: u64 = 0x1c0, 64;
        cap_mask1: u32 = 0x200, 32;
        cap_mask1_field_select: u32 = 0x220, 32;
        cap_mask2: u32 = 0x240, 32;
        cap_mask2_field_select: u32 = 0x260, 32;
        lid: u16 = 0x300, 16;
        init_type_reply: u8 = 0x314, 4;
        lmc: u8 = 0x318, 3;
        subnet_timeout: u8 = 0x31b, 5;
        sm_lid: u16 = 0x320, 16;
        sm_sl: u8 = 0x330, 4;
        qkey_violation_counter: u16 = 0x340, 16;
        pkey_violation_counter: u16 = 0x350, 16;
    }
}

layout! {
    /// A MAC address.
    pub struct MacAddressLayout: "mac_address_layout", 0x8 {
        mac_addr_47_32: u16 = 0x10, 16;
        mac_addr_31_0: u32 = 0x20, 32;
    }
}

layout! {
    /// A VLAN id.
    pub struct VlanLayout: "vlan_layout", 0x8 {
        vlan: u16 = 0x14, 12;
    }
}

layout! {
    /// An entry of a partition key table.
    pub struct Pkey: "pkey", 0x4 {
        pkey: u16 = 0x10, 16;
    }
}

layout! {
    /// An entry of the RoCE address table.
    pub struct RoceAddrLayout: "roce_addr_layout", 0x20 {
        source_l3_address: bytes(16) = 0x0;
        vlan_valid: bool = 0x83, 1;
        vlan_id: u16 = 0x84, 12;
        source_mac_47_32: u16 = 0x90, 16;
        source_mac_31_0: u32 = 0xa0, 32;
        roce_l3_type: u8 = 0xd4, 4;
        roce_version: u8 = 0xd8, 8;
    }
}

crate::layout::layouts!(
    QueryNicVportContextIn,
    QueryNicVportContextOut,
    ModifyNicVportContextIn,
    ModifyNicVportContextOut,
    QueryVportStateIn,
    QueryVportStateOut,
    ModifyVportStateIn,
    ModifyVportStateOut,
    QueryVportCounterIn,
    QueryVportCounterOut,
    QueryHcaVportPkeyIn,
    QueryHcaVportPkeyOut,
    QueryHcaVportGidIn,
    QueryHcaVportGidOut,
    QueryHcaVportContextIn,
    QueryHcaVportContextOut,
    SetRoceAddressIn,
    SetRoceAddressOut,
    QueryRoceAddressIn,
    QueryRoceAddressOut,
    AllocQCounterIn,
    AllocQCounterOut,
    DeallocQCounterIn,
    DeallocQCounterOut,
    QueryQCounterIn,
    QueryQCounterOut,
    SetL2TableEntryIn,
    SetL2TableEntryOut,
    QueryL2TableEntryIn,
    QueryL2TableEntryOut,
    DeleteL2TableEntryIn,
    DeleteL2TableEntryOut,
    NicVportContext,
    ModifyNicVportFieldSelect,
    HcaVportContext,
    MacAddressLayout,
    VlanLayout,
    Pkey,
    RoceAddrLayout
);
