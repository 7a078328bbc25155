//! Event queues.

use crate::layout::layout;

layout! {
    /// Input of CREATE_EQ.
    pub struct CreateEqIn: "create_eq_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        eq_context_entry: layout(Eqc) = 0x80;
        event_bitmask: bytes(32) = 0x2c0;
    }
}

layout! {
    /// Output of CREATE_EQ.
    pub struct CreateEqOut: "create_eq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        eq_number: u8 = 0x58, 8;
    }
}

layout! {
    /// Input of DESTROY_EQ.
    pub struct DestroyEqIn: "destroy_eq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        eq_number: u8 = 0x58, 8;
    }
}

layout! {
    /// Output of DESTROY_EQ.
    pub struct DestroyEqOut: "destroy_eq_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_EQ.
    pub struct QueryEqIn: "query_eq_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        eq_number: u8 = 0x58, 8;
    }
}

layout! {
    /// Output of QUERY_EQ.
    pub struct QueryEqOut: "query_eq_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        eq_context_entry: layout(Eqc) = 0x80;
        event_bitmask: u64 = 0x2c0, 64;
    }
}

layout! {
    /// Event queue context.
    pub struct Eqc: "eqc", 0x40 {
        status: u8 = 0x0, 4;
        ec: bool = 0xd, 1;
        oi: bool = 0xe, 1;
        st: u8 = 0x14, 4;
        page_offset: u8 = 0x54, 6;
        log_eq_size: u8 = 0x63, 5;
        uar_page: u32 = 0x68, 24;
        intr: u16 = 0xb4, 12;
        log_page_size: u8 = 0xc3, 5;
        consumer_counter: u32 = 0x148, 24;
        producer_counter: u32 = 0x168, 24;
    }
}

crate::layout::layouts!(
    CreateEqIn,
    CreateEqOut,
    DestroyEqIn,
    DestroyEqOut,
    QueryEqIn,
    QueryEqOut,
    Eqc
);
