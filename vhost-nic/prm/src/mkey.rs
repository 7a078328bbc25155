//! Memory keys.

use crate::layout::layout;

layout! {
    /// Input of CREATE_MKEY.
    pub struct CreateMkeyIn: "create_mkey_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        pg_access: bool = 0x60, 1;
        mkey_umem_valid: bool = 0x61, 1;
        data_direct: bool = 0x62, 1;
        memory_key_mkey_entry: layout(Mkc) = 0x80;
        translations_octword_actual_size: u32 = 0x300, 32;
    }
}

layout! {
    /// Output of CREATE_MKEY.
    pub struct CreateMkeyOut: "create_mkey_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        mkey_index: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DESTROY_MKEY.
    pub struct DestroyMkeyIn: "destroy_mkey_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        mkey_index: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_MKEY.
    pub struct DestroyMkeyOut: "destroy_mkey_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_MKEY.
    pub struct QueryMkeyIn: "query_mkey_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        mkey_index: u32 = 0x48, 24;
        pg_access: bool = 0x60, 1;
    }
}

layout! {
    /// Output of QUERY_MKEY.
    pub struct QueryMkeyOut: "query_mkey_out", 0x130 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        memory_key_mkey_entry: layout(Mkc) = 0x80;
        bsf0_klm0_pas_mtt0_1: bytes(16) = 0x880;
        bsf1_klm1_pas_mtt2_3: bytes(16) = 0x900;
    }
}

layout! {
    /// Memory key context.
    pub struct Mkc: "mkc", 0x40 {
        free: bool = 0x1, 1;
        access_mode_4_2: u8 = 0x3, 3;
        relaxed_ordering_write: bool = 0xd, 1;
        small_fence_on_rdma_read_response: bool = 0xf, 1;
        umr_en: bool = 0x10, 1;
        a: bool = 0x11, 1;
        rw: bool = 0x12, 1;
        rr: bool = 0x13, 1;
        lw: bool = 0x14, 1;
        lr: bool = 0x15, 1;
        access_mode_1_0: u8 = 0x16, 2;
        ma_translation_mode: u8 = 0x1a, 2;
        qpn: u32 = 0x20, 24;
        mkey_7_0: u8 = 0x38, 8;
        length64: bool = 0x60, 1;
        bsf_en: bool = 0x61, 1;
        sync_umr: bool = 0x62, 1;
        expected_sigerr_count: bool = 0x65, 1;
        en_rinval: bool = 0x67, 1;
        pd: u32 = 0x68, 24;
        start_addr: u64 = 0x80, 64;
        len: u64 = 0xc0, 64;
        bsf_octword_size: u32 = 0x100, 32;
        crossing_target_vhca_id: u16 = 0x180, 16;
        translations_octword_size: u32 = 0x1a0, 32;
        relaxed_ordering_read: bool = 0x1d9, 1;
        log_page_size: u8 = 0x1da, 6;
        pcie_tph_en: bool = 0x1e5, 1;
        pcie_tph_ph: u8 = 0x1e6, 2;
        pcie_tph_steering_tag_index: u8 = 0x1e8, 8;
    }
}

layout! {
    /// Translation entry that names a page.
    pub struct Mtt: "mtt", 0x8 {
        ptag_63_32: u32 = 0x0, 32;
        ptag_31_8: u32 = 0x20, 24;
        wr_en: bool = 0x3e, 1;
        rd_en: bool = 0x3f, 1;
    }
}

crate::layout::layouts!(
    CreateMkeyIn,
    CreateMkeyOut,
    DestroyMkeyIn,
    DestroyMkeyOut,
    QueryMkeyIn,
    QueryMkeyOut,
    Mkc,
    Mtt
);
