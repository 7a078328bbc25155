//! User access regions, protection domains, transport domains, XRC domains, user contexts.

use crate::layout::layout;

layout! {
    /// Input of ALLOC_UAR.
    pub struct AllocUarIn: "alloc_uar_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of ALLOC_UAR.
    pub struct AllocUarOut: "alloc_uar_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        uar: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DEALLOC_UAR.
    pub struct DeallocUarIn: "dealloc_uar_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        uar: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DEALLOC_UAR.
    pub struct DeallocUarOut: "dealloc_uar_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of ALLOC_PD.
    pub struct AllocPdIn: "alloc_pd_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of ALLOC_PD.
    pub struct AllocPdOut: "alloc_pd_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        pd: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DEALLOC_PD.
    pub struct DeallocPdIn: "dealloc_pd_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        pd: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DEALLOC_PD.
    pub struct DeallocPdOut: "dealloc_pd_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of ALLOC_TRANSPORT_DOMAIN.
    pub struct AllocTransportDomainIn: "alloc_transport_domain_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of ALLOC_TRANSPORT_DOMAIN.
    pub struct AllocTransportDomainOut: "alloc_transport_domain_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        transport_domain: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DEALLOC_TRANSPORT_DOMAIN.
    pub struct DeallocTransportDomainIn: "dealloc_transport_domain_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        transport_domain: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DEALLOC_TRANSPORT_DOMAIN.
    pub struct DeallocTransportDomainOut: "dealloc_transport_domain_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of ALLOC_XRCD.
    pub struct AllocXrcdIn: "alloc_xrcd_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
    }
}

layout! {
    /// Output of ALLOC_XRCD.
    pub struct AllocXrcdOut: "alloc_xrcd_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        xrcd: u32 = 0x48, 24;
    }
}

layout! {
    /// Input of DEALLOC_XRCD.
    pub struct DeallocXrcdIn: "dealloc_xrcd_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        xrcd: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DEALLOC_XRCD.
    pub struct DeallocXrcdOut: "dealloc_xrcd_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of CREATE_UCTX.
    pub struct CreateUctxIn: "create_uctx_in", 0x40 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        uctx: layout(Uctx) = 0x80;
    }
}

layout! {
    /// Output of CREATE_UCTX.
    pub struct CreateUctxOut: "create_uctx_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        uid: u16 = 0x50, 16;
    }
}

layout! {
    /// Input of DESTROY_UCTX.
    pub struct DestroyUctxIn: "destroy_uctx_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        uid: u16 = 0x50, 16;
    }
}

layout! {
    /// Output of DESTROY_UCTX.
    pub struct DestroyUctxOut: "destroy_uctx_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// User context.
    pub struct Uctx: "uctx", 0x30 {
        cap: u32 = 0x0, 32;
    }
}

crate::layout::layouts!(
    AllocUarIn,
    AllocUarOut,
    DeallocUarIn,
    DeallocUarOut,
    AllocPdIn,
    AllocPdOut,
    DeallocPdIn,
    DeallocPdOut,
    AllocTransportDomainIn,
    AllocTransportDomainOut,
    DeallocTransportDomainIn,
    DeallocTransportDomainOut,
    AllocXrcdIn,
    AllocXrcdOut,
    DeallocXrcdIn,
    DeallocXrcdOut,
    CreateUctxIn,
    CreateUctxOut,
    DestroyUctxIn,
    DestroyUctxOut,
    Uctx
);
