//! Completion queues.

use crate::layout::layout;

layout! {
    /// Input of CREATE_CQ.
    pub struct CreateCqIn: "create_cq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        cq_context: layout(Cqc) = 0x80;
        cq_umem_valid: bool = 0x2e0, 1;
    }
}

layout! {
    /// Output of CREATE_CQ.
    pub struct CreateCqOut: "create_cq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        cqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DESTROY_CQ.
    pub struct DestroyCqIn: "destroy_cq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        cqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_CQ.
    pub struct DestroyCqOut: "destroy_cq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_CQ.
    pub struct QueryCqIn: "query_cq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        cqn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_CQ.
    pub struct QueryCqOut: "query_cq_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        cq_context: layout(Cqc) = 0x80;
    }
}

layout! {
    /// Input of MODIFY_CQ.
    pub struct ModifyCqIn: "modify_cq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        cqn: u32 = 0x48, 24;
        modify_field_select_resize_field_select: bytes(4) = 0x60;
        cq_context: layout(Cqc) = 0x80;
        cq_umem_valid: bool = 0x2e0, 1;
    }
}

layout! {
    /// Output of MODIFY_CQ.
    pub struct ModifyCqOut: "modify_cq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Completion queue context.
    pub struct Cqc: "cqc", 0x40 {
        status: u8 = 0x0, 4;
        dbr_umem_valid: bool = 0x6, 1;
        apu_cq: bool = 0x7, 1;
        cqe_sz: u8 = 0x8, 3;
        cc: bool = 0xb, 1;
        scqe_break_moderation_en: bool = 0xd, 1;
        oi: bool = 0xe, 1;
        cq_period_mode: u8 = 0xf, 2;
        cqe_comp_en: bool = 0x11, 1;
        mini_cqe_res_format: u8 = 0x12, 2;
        st: u8 = 0x14, 4;
        cqe_compression_layout: u8 = 0x1e, 2;
        page_offset: u8 = 0x54, 6;
        log_cq_size: u8 = 0x63, 5;
        uar_page: u32 = 0x68, 24;
        cq_period: u16 = 0x84, 12;
        cq_max_count: u16 = 0x90, 16;
        c_eqn_or_apu_element: u32 = 0xa0, 32;
        log_page_size: u8 = 0xc3, 5;
        last_notified_index: u32 = 0x108, 24;
        last_solicit_index: u32 = 0x128, 24;
        consumer_counter: u32 = 0x148, 24;
        producer_counter: u32 = 0x168, 24;
        dbr_addr: u64 = 0x1c0, 64;
    }
}

crate::layout::layouts!(
    CreateCqIn,
    CreateCqOut,
    DestroyCqIn,
    DestroyCqOut,
    QueryCqIn,
    QueryCqOut,
    ModifyCqIn,
    ModifyCqOut,
    Cqc
);
