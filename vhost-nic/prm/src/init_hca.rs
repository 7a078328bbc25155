//! Commands that enable, start and stop the HCA and manage its pages.

use crate::layout::layout;

layout! {
    /// Input of ENABLE_HCA.
    pub struct EnableHcaIn: "enable_hca_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        embedded_cpu_function: bool = 0x40, 1;
        function_id_type: bool = 0x43, 1;
        function_id: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of ENABLE_HCA.
    pub struct EnableHcaOut: "enable_hca_out", 0xc {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DISABLE_HCA.
    pub struct DisableHcaIn: "disable_hca_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        embedded_cpu_function: bool = 0x40, 1;
        function_id_type: bool = 0x43, 1;
        function_id: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of DISABLE_HCA.
    pub struct DisableHcaOut: "disable_hca_out", 0xc {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of INIT_HCA.
    pub struct InitHcaIn: "init_hca_in", 0x20 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        sw_vhca_id: u16 = 0x62, 14;
        sw_owner_id: bytes(16) = 0x80;
    }
}

layout! {
    /// Output of INIT_HCA.
    pub struct InitHcaOut: "init_hca_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of TEARDOWN_HCA.
    pub struct TeardownHcaIn: "teardown_hca_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        profile: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of TEARDOWN_HCA.
    pub struct TeardownHcaOut: "teardown_hca_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        state: bool = 0x7f, 1;
    }
}

layout! {
    /// Input of QUERY_ISSI.
    pub struct QueryIssiIn: "query_issi_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of QUERY_ISSI.
    pub struct QueryIssiOut: "query_issi_out", 0x70 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        current_issi: u16 = 0x50, 16;
        supported_issi_dw0: u32 = 0x360, 32;
    }
}

layout! {
    /// Input of SET_ISSI.
    pub struct SetIssiIn: "set_issi_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        current_issi: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of SET_ISSI.
    pub struct SetIssiOut: "set_issi_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_PAGES.
    pub struct QueryPagesIn: "query_pages_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        embedded_cpu_function: bool = 0x40, 1;
        function_id: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of QUERY_PAGES.
    pub struct QueryPagesOut: "query_pages_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        embedded_cpu_function: bool = 0x40, 1;
        function_id: u16 = 0x50, 16;
        num_pages: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of MANAGE_PAGES.
    pub struct ManagePagesIn: "manage_pages_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        embedded_cpu_function: bool = 0x40, 1;
        function_id: u16 = 0x50, 16;
        input_num_entries: u32 = 0x60, 32;
    }
}

layout! {
    /// Output of MANAGE_PAGES.
    pub struct ManagePagesOut: "manage_pages_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        output_num_entries: u32 = 0x40, 32;
    }
}

layout! {
    /// Input of QUERY_ADAPTER.
    pub struct QueryAdapterIn: "query_adapter_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of QUERY_ADAPTER.
    pub struct QueryAdapterOut: "query_adapter_out", 0x110 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        query_adapter_struct: layout(QueryAdapterParamBlock) = 0x80;
    }
}

layout! {
    /// Input of SET_DRIVER_VERSION.
    pub struct SetDriverVersionIn: "set_driver_version_in", 0x50 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        driver_version: bytes(64) = 0x80;
    }
}

layout! {
    /// Output of SET_DRIVER_VERSION.
    pub struct SetDriverVersionOut: "set_driver_version_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_SPECIAL_CONTEXTS.
    pub struct QuerySpecialContextsIn: "query_special_contexts_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of QUERY_SPECIAL_CONTEXTS.
    pub struct QuerySpecialContextsOut: "query_special_contexts_out", 0x20 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        dump_fill_mkey: u32 = 0x40, 32;
        resd_lkey: u32 = 0x60, 32;
        null_mkey: u32 = 0x80, 32;
        terminate_scatter_list_mkey: u32 = 0xa0, 32;
        repeated_mkey: u32 = 0xc0, 32;
    }
}

layout! {
    /// Result of QUERY_ADAPTER.
    pub struct QueryAdapterParamBlock: "query_adapter_param_block", 0x100 {
        ieee_vendor_id: u32 = 0xc8, 24;
        vsd_vendor_id: u16 = 0xf0, 16;
        vsd: bytes(208) = 0x100;
        vsd_contd_psid: bytes(16) = 0x780;
    }
}

crate::layout::layouts!(
    EnableHcaIn,
    EnableHcaOut,
    DisableHcaIn,
    DisableHcaOut,
    InitHcaIn,
    InitHcaOut,
    TeardownHcaIn,
    TeardownHcaOut,
    QueryIssiIn,
    QueryIssiOut,
    SetIssiIn,
    SetIssiOut,
    QueryPagesIn,
    QueryPagesOut,
    ManagePagesIn,
    ManagePagesOut,
    QueryAdapterIn,
    QueryAdapterOut,
    SetDriverVersionIn,
    SetDriverVersionOut,
    QuerySpecialContextsIn,
    QuerySpecialContextsOut,
    QueryAdapterParamBlock
);
