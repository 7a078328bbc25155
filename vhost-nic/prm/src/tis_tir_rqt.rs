//! TIS, TIR and RQT: the objects between work queues and the wire.

use crate::layout::layout;

layout! {
    /// Input of CREATE_TIS.
    pub struct CreateTisIn: "create_tis_in", 0xc0 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        ctx: layout(Tisc) = 0x100;
    }
}

layout! {
    /// Output of CREATE_TIS.
    pub struct CreateTisOut: "create_tis_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        tisn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of MODIFY_TIS.
    pub struct ModifyTisIn: "modify_tis_in", 0xc0 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        tisn: u32 = 0x48, 24;
        bitmask: layout(ModifyTisBitmask) = 0x80;
        ctx: layout(Tisc) = 0x100;
    }
}

layout! {
    /// Output of MODIFY_TIS.
    pub struct ModifyTisOut: "modify_tis_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_TIS.
    pub struct DestroyTisIn: "destroy_tis_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        tisn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_TIS.
    pub struct DestroyTisOut: "destroy_tis_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_TIS.
    pub struct QueryTisIn: "query_tis_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        tisn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_TIS.
    pub struct QueryTisOut: "query_tis_out", 0xb0 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        tis_context: layout(Tisc) = 0x80;
    }
}

layout! {
    /// Input of CREATE_TIR.
    pub struct CreateTirIn: "create_tir_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        ctx: layout(Tirc) = 0x100;
    }
}

layout! {
    /// Output of CREATE_TIR.
    pub struct CreateTirOut: "create_tir_out", 0x10 {
        status: u8 = 0x0, 8;
        icm_address_63_40: u32 = 0x8, 24;
        syndrome: u32 = 0x20, 32;
        icm_address_39_32: u8 = 0x40, 8;
        tirn: u32 = 0x48, 24;
        icm_address_31_0: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of MODIFY_TIR.
    pub struct ModifyTirIn: "modify_tir_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        tirn: u32 = 0x48, 24;
        bitmask: layout(ModifyTirBitmask) = 0x80;
        ctx: layout(Tirc) = 0x100;
    }
}

layout! {
    /// Output of MODIFY_TIR.
    pub struct ModifyTirOut: "modify_tir_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_TIR.
    pub struct DestroyTirIn: "destroy_tir_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        tirn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_TIR.
    pub struct DestroyTirOut: "destroy_tir_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_TIR.
    pub struct QueryTirIn: "query_tir_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        tirn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_TIR.
    pub struct QueryTirOut: "query_tir_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        tir_context: layout(Tirc) = 0x100;
    }
}

layout! {
    /// Input of CREATE_RQT.
    pub struct CreateRqtIn: "create_rqt_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rqt_context: layout(Rqtc) = 0x100;
    }
}

layout! {
    /// Output of CREATE_RQT.
    pub struct CreateRqtOut: "create_rqt_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rqtn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of MODIFY_RQT.
    pub struct ModifyRqtIn: "modify_rqt_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rqtn: u32 = 0x48, 24;
        bitmask: layout(RqtBitmask) = 0x80;
        ctx: layout(Rqtc) = 0x100;
    }
}

layout! {
    /// Output of MODIFY_RQT.
    pub struct ModifyRqtOut: "modify_rqt_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_RQT.
    pub struct DestroyRqtIn: "destroy_rqt_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rqtn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_RQT.
    pub struct DestroyRqtOut: "destroy_rqt_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_RQT.
    pub struct QueryRqtIn: "query_rqt_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        rqtn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_RQT.
    pub struct QueryRqtOut: "query_rqt_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rqt_context: layout(Rqtc) = 0x100;
    }
}

layout! {
    /// Transport interface send context.
    pub struct Tisc: "tisc", 0xa0 {
        strict_lag_tx_port_affinity: bool = 0x0, 1;
        tls_en: bool = 0x1, 1;
        lag_tx_port_affinity: u8 = 0x4, 4;
        prio: u8 = 0xc, 4;
        transport_domain: u32 = 0x128, 24;
        underlay_qpn: u32 = 0x148, 24;
        pd: u32 = 0x168, 24;
    }
}

layout! {
    /// Transport interface receive context.
    pub struct Tirc: "tirc", 0xf0 {
        disp_type: u8 = 0x20, 4;
        tls_en: bool = 0x24, 1;
        lro_timeout_period_usecs: u16 = 0x84, 16;
        packet_merge_mask: u8 = 0x94, 4;
        lro_max_ip_payload_size: u8 = 0x98, 8;
        inline_rqn: u32 = 0xe8, 24;
        rx_hash_symmetric: bool = 0x100, 1;
        tunneled_offload_en: bool = 0x102, 1;
        indirect_table: u32 = 0x108, 24;
        rx_hash_fn: u8 = 0x120, 4;
        self_lb_block: u8 = 0x126, 2;
        transport_domain: u32 = 0x128, 24;
        rx_hash_toeplitz_key: bytes(40) = 0x140;
        rx_hash_field_selector_outer: layout(RxHashFieldSelect) = 0x280;
        rx_hash_field_selector_inner: layout(RxHashFieldSelect) = 0x2a0;
    }
}

layout! {
    /// Fields that a receive hash covers.
    pub struct RxHashFieldSelect: "rx_hash_field_select", 0x4 {
        l3_prot_type: bool = 0x0, 1;
        l4_prot_type: bool = 0x1, 1;
        selected_fields: u32 = 0x2, 30;
    }
}

layout! {
    /// Receive queue table context.
    pub struct Rqtc: "rqtc", 0xf0 {
        list_q_type: u8 = 0xa5, 3;
        rqt_max_size: u16 = 0xb0, 16;
        rq_vhca_id_format: bool = 0xc0, 1;
        rqt_actual_size: u16 = 0xd0, 16;
    }
}

layout! {
    /// An entry of a receive queue table.
    pub struct RqNum: "rq_num", 0x4 {
        rq_num: u32 = 0x8, 24;
    }
}

layout! {
    /// Fields that MODIFY_TIS changes.
    pub struct ModifyTisBitmask: "modify_tis_bitmask", 0x8 {
        lag_tx_port_affinity: bool = 0x3d, 1;
        strict_lag_tx_port_affinity: bool = 0x3e, 1;
        prio: bool = 0x3f, 1;
    }
}

layout! {
    /// Fields that MODIFY_TIR changes.
    pub struct ModifyTirBitmask: "modify_tir_bitmask", 0x8 {
        self_lb_en: bool = 0x3b, 1;
        hash: bool = 0x3d, 1;
        packet_merge: bool = 0x3f, 1;
    }
}

layout! {
    /// Fields that MODIFY_RQT changes.
    pub struct RqtBitmask: "rqt_bitmask", 0x8 {
        rqn_list: bool = 0x3f, 1;
    }
}

crate::layout::layouts!(
    CreateTisIn,
    CreateTisOut,
    ModifyTisIn,
    ModifyTisOut,
    DestroyTisIn,
    DestroyTisOut,
    QueryTisIn,
    QueryTisOut,
    CreateTirIn,
    CreateTirOut,
    ModifyTirIn,
    ModifyTirOut,
    DestroyTirIn,
    DestroyTirOut,
    QueryTirIn,
    QueryTirOut,
    CreateRqtIn,
    CreateRqtOut,
    ModifyRqtIn,
    ModifyRqtOut,
    DestroyRqtIn,
    DestroyRqtOut,
    QueryRqtIn,
    QueryRqtOut,
    Tisc,
    Tirc,
    RxHashFieldSelect,
    Rqtc,
    RqNum,
    ModifyTisBitmask,
    ModifyTirBitmask,
    RqtBitmask
);
