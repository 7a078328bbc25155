//! Receive queues, send queues and shared receive queues.

use crate::layout::layout;

layout! {
    /// Input of CREATE_RQ.
    pub struct CreateRqIn: "create_rq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        ctx: layout(Rqc) = 0x100;
    }
}

layout! {
    /// Output of CREATE_RQ.
    pub struct CreateRqOut: "create_rq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of MODIFY_RQ.
    pub struct ModifyRqIn: "modify_rq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rq_state: u8 = 0x40, 4;
        rqn: u32 = 0x48, 24;
        modify_bitmask: u64 = 0x80, 64;
        ctx: layout(Rqc) = 0x100;
    }
}

layout! {
    /// Output of MODIFY_RQ.
    pub struct ModifyRqOut: "modify_rq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_RQ.
    pub struct DestroyRqIn: "destroy_rq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_RQ.
    pub struct DestroyRqOut: "destroy_rq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_RQ.
    pub struct QueryRqIn: "query_rq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        rqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_RQ.
    pub struct QueryRqOut: "query_rq_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rq_context: layout(Rqc) = 0x100;
    }
}

layout! {
    /// Input of CREATE_SQ.
    pub struct CreateSqIn: "create_sq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        ctx: layout(Sqc) = 0x100;
    }
}

layout! {
    /// Output of CREATE_SQ.
    pub struct CreateSqOut: "create_sq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        sqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of MODIFY_SQ.
    pub struct ModifySqIn: "modify_sq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        sq_state: u8 = 0x40, 4;
        sqn: u32 = 0x48, 24;
        modify_bitmask: u64 = 0x80, 64;
        ctx: layout(Sqc) = 0x100;
    }
}

layout! {
    /// Output of MODIFY_SQ.
    pub struct ModifySqOut: "modify_sq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_SQ.
    pub struct DestroySqIn: "destroy_sq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        sqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_SQ.
    pub struct DestroySqOut: "destroy_sq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_SQ.
    pub struct QuerySqIn: "query_sq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        sqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_SQ.
    pub struct QuerySqOut: "query_sq_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        sq_context: layout(Sqc) = 0x100;
    }
}

layout! {
    /// Input of CREATE_RMP.
    pub struct CreateRmpIn: "create_rmp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        ctx: layout(Rmpc) = 0x100;
    }
}

layout! {
    /// Output of CREATE_RMP.
    pub struct CreateRmpOut: "create_rmp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rmpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of MODIFY_RMP.
    pub struct ModifyRmpIn: "modify_rmp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rmp_state: u8 = 0x40, 4;
        rmpn: u32 = 0x48, 24;
        bitmask: layout(RmpBitmask) = 0x80;
        ctx: layout(Rmpc) = 0x100;
    }
}

layout! {
    /// Output of MODIFY_RMP.
    pub struct ModifyRmpOut: "modify_rmp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DESTROY_RMP.
    pub struct DestroyRmpIn: "destroy_rmp_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        rmpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_RMP.
    pub struct DestroyRmpOut: "destroy_rmp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_RMP.
    pub struct QueryRmpIn: "query_rmp_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        rmpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_RMP.
    pub struct QueryRmpOut: "query_rmp_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        rmp_context: layout(Rmpc) = 0x100;
    }
}

layout! {
    /// Input of CREATE_XRC_SRQ.
    pub struct CreateXrcSrqIn: "create_xrc_srq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        xrc_srq_context_entry: layout(XrcSrqc) = 0x80;
        xrc_srq_umem_valid: bool = 0x2e0, 1;
    }
}

layout! {
    /// Output of CREATE_XRC_SRQ.
    pub struct CreateXrcSrqOut: "create_xrc_srq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        xrc_srqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DESTROY_XRC_SRQ.
    pub struct DestroyXrcSrqIn: "destroy_xrc_srq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        xrc_srqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_XRC_SRQ.
    pub struct DestroyXrcSrqOut: "destroy_xrc_srq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_XRC_SRQ.
    pub struct QueryXrcSrqIn: "query_xrc_srq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        xrc_srqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_XRC_SRQ.
    pub struct QueryXrcSrqOut: "query_xrc_srq_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        xrc_srq_context_entry: layout(XrcSrqc) = 0x80;
    }
}

layout! {
    /// Input of ARM_XRC_SRQ.
    pub struct ArmXrcSrqIn: "arm_xrc_srq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        xrc_srqn: u32 = 0x48, 24;
        lwm: u16 = 0x70, 16;
    }
}

layout! {
    /// Output of ARM_XRC_SRQ.
    pub struct ArmXrcSrqOut: "arm_xrc_srq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Work queue.
    pub struct Wq: "wq", 0xc0 {
        wq_type: u8 = 0x0, 4;
        wq_signature: bool = 0x4, 1;
        end_padding_mode: u8 = 0x5, 2;
        cd_slave: bool = 0x7, 1;
        hds_skip_first_sge: bool = 0x20, 1;
        log2_hds_buf_size: u8 = 0x21, 3;
        page_offset: u8 = 0x2b, 5;
        lwm: u16 = 0x30, 16;
        pd: u32 = 0x48, 24;
        uar_page: u32 = 0x68, 24;
        dbr_addr: u64 = 0x80, 64;
        hw_counter: u32 = 0xc0, 32;
        sw_counter: u32 = 0xe0, 32;
        log_wq_stride: u8 = 0x10c, 4;
        log_wq_pg_sz: u8 = 0x113, 5;
        log_wq_sz: u8 = 0x11b, 5;
        dbr_umem_valid: bool = 0x120, 1;
        wq_umem_valid: bool = 0x121, 1;
        log_hairpin_num_packets: u8 = 0x123, 5;
        log_hairpin_data_sz: u8 = 0x12b, 5;
        log_wqe_num_of_strides: u8 = 0x134, 4;
        two_byte_shift_en: bool = 0x138, 1;
        log_wqe_stride_size: u8 = 0x13d, 3;
        dbr_umem_id: u32 = 0x140, 32;
        wq_umem_id: u32 = 0x160, 32;
        wq_umem_offset: u64 = 0x180, 64;
        headers_mkey: u32 = 0x1c0, 32;
        shampo_enable: bool = 0x1e0, 1;
        shampo_mode: u8 = 0x1e2, 2;
        log_reservation_size: u8 = 0x1e5, 3;
        log_max_num_of_packets_per_reservation: u8 = 0x1ed, 3;
        log_headers_entry_size: u8 = 0x1f6, 2;
        log_headers_buffer_entry_num: u8 = 0x1fc, 4;
    }
}

layout! {
    /// Receive queue context.
    pub struct Rqc: "rqc", 0xf0 {
        rlky: bool = 0x0, 1;
        delay_drop_en: bool = 0x1, 1;
        scatter_fcs: bool = 0x2, 1;
        vsd: bool = 0x3, 1;
        mem_rq_type: u8 = 0x4, 4;
        state: u8 = 0x8, 4;
        flush_in_error_en: bool = 0xd, 1;
        hairpin: bool = 0xe, 1;
        ts_format: u8 = 0x1a, 2;
        user_index: u32 = 0x28, 24;
        cqn: u32 = 0x48, 24;
        counter_set_id: u8 = 0x60, 8;
        rmpn: u32 = 0x88, 24;
        hairpin_peer_sq: u32 = 0xa8, 24;
        hairpin_peer_vhca: u16 = 0xd0, 16;
        shampo_no_match_alignment_granularity: u8 = 0x126, 2;
        shampo_match_criteria_type: u8 = 0x12e, 2;
        reservation_timeout: u16 = 0x130, 16;
        wq: layout(Wq) = 0x180;
    }
}

layout! {
    /// Send queue context.
    pub struct Sqc: "sqc", 0xf0 {
        rlky: bool = 0x0, 1;
        cd_master: bool = 0x1, 1;
        fre: bool = 0x2, 1;
        flush_in_error_en: bool = 0x3, 1;
        allow_multi_pkt_send_wqe: bool = 0x4, 1;
        min_wqe_inline_mode: u8 = 0x5, 3;
        state: u8 = 0x8, 4;
        reg_umr: bool = 0xc, 1;
        allow_swp: bool = 0xd, 1;
        hairpin: bool = 0xe, 1;
        non_wire: bool = 0xf, 1;
        ts_format: u8 = 0x1a, 2;
        user_index: u32 = 0x28, 24;
        cqn: u32 = 0x48, 24;
        hairpin_peer_rq: u32 = 0x68, 24;
        hairpin_peer_vhca: u16 = 0x90, 16;
        ts_cqe_to_dest_cqn: u32 = 0xc8, 24;
        packet_pacing_rate_limit_index: u16 = 0xf0, 16;
        tis_lst_sz: u16 = 0x100, 16;
        qos_queue_group_id: u16 = 0x110, 16;
        tis_num_0: u32 = 0x168, 24;
        wq: layout(Wq) = 0x180;
    }
}

layout! {
    /// Receive memory pool context.
    pub struct Rmpc: "rmpc", 0xf0 {
        state: u8 = 0x8, 4;
        basic_cyclic_rcv_wqe: bool = 0x20, 1;
        wq: layout(Wq) = 0x180;
    }
}

layout! {
    /// Fields that MODIFY_RMP changes.
    pub struct RmpBitmask: "rmp_bitmask", 0x8 {
        lwm: bool = 0x3f, 1;
    }
}

layout! {
    /// XRC shared receive queue context.
    pub struct XrcSrqc: "xrc_srqc", 0x40 {
        state: u8 = 0x0, 4;
        log_xrc_srq_size: u8 = 0x4, 4;
        wq_signature: bool = 0x20, 1;
        cont_srq: bool = 0x21, 1;
        rlky: bool = 0x23, 1;
        basic_cyclic_rcv_wqe: bool = 0x24, 1;
        log_rq_stride: u8 = 0x25, 3;
        xrcd: u32 = 0x28, 24;
        page_offset: u8 = 0x40, 6;
        dbr_umem_valid: bool = 0x47, 1;
        cqn: u32 = 0x48, 24;
        user_index_equal_xrc_srqn: bool = 0x80, 1;
        log_page_size: u8 = 0x82, 6;
        user_index: u32 = 0x88, 24;
        pd: u32 = 0xc8, 24;
        lwm: u16 = 0xe0, 16;
        wqe_cnt: u16 = 0xf0, 16;
        db_record_addr_h: u32 = 0x140, 32;
        db_record_addr_l: u32 = 0x160, 30;
    }
}

crate::layout::layouts!(
    CreateRqIn,
    CreateRqOut,
    ModifyRqIn,
    ModifyRqOut,
    DestroyRqIn,
    DestroyRqOut,
    QueryRqIn,
    QueryRqOut,
    CreateSqIn,
    CreateSqOut,
    ModifySqIn,
    ModifySqOut,
    DestroySqIn,
    DestroySqOut,
    QuerySqIn,
    QuerySqOut,
    CreateRmpIn,
    CreateRmpOut,
    ModifyRmpIn,
    ModifyRmpOut,
    DestroyRmpIn,
    DestroyRmpOut,
    QueryRmpIn,
    QueryRmpOut,
    CreateXrcSrqIn,
    CreateXrcSrqOut,
    DestroyXrcSrqIn,
    DestroyXrcSrqOut,
    QueryXrcSrqIn,
    QueryXrcSrqOut,
    ArmXrcSrqIn,
    ArmXrcSrqOut,
    Wq,
    Rqc,
    Sqc,
    Rmpc,
    RmpBitmask,
    XrcSrqc
);
