//! Queue pairs.

use crate::layout::layout;

layout! {
    /// Input of CREATE_QP.
    pub struct CreateQpIn: "create_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpc_ext: bool = 0x40, 1;
        input_qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
        wq_umem_offset: u64 = 0x800, 64;
        wq_umem_id: u32 = 0x840, 32;
        wq_umem_valid: bool = 0x860, 1;
    }
}

layout! {
    /// Output of CREATE_QP.
    pub struct CreateQpOut: "create_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        qpn: u32 = 0x48, 24;
        ece: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of DESTROY_QP.
    pub struct DestroyQpIn: "destroy_qp_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of DESTROY_QP.
    pub struct DestroyQpOut: "destroy_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QUERY_QP.
    pub struct QueryQpIn: "query_qp_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        qpc_ext: bool = 0x40, 1;
        qpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QUERY_QP.
    pub struct QueryQpOut: "query_qp_out", 0x1d0 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
        qp_pas_or_qpc_ext_and_pas: bytes(192) = 0x880;
    }
}

layout! {
    /// Input of RST2INIT_QP.
    pub struct Rst2initQpIn: "rst2init_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of RST2INIT_QP.
    pub struct Rst2initQpOut: "rst2init_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        ece: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of INIT2INIT_QP.
    pub struct Init2initQpIn: "init2init_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of INIT2INIT_QP.
    pub struct Init2initQpOut: "init2init_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        ece: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of INIT2RTR_QP.
    pub struct Init2rtrQpIn: "init2rtr_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of INIT2RTR_QP.
    pub struct Init2rtrQpOut: "init2rtr_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        ece: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of RTR2RTS_QP.
    pub struct Rtr2rtsQpIn: "rtr2rts_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of RTR2RTS_QP.
    pub struct Rtr2rtsQpOut: "rtr2rts_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        ece: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of RTS2RTS_QP.
    pub struct Rts2rtsQpIn: "rts2rts_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        ece: u32 = 0xa0, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of RTS2RTS_QP.
    pub struct Rts2rtsQpOut: "rts2rts_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        ece: u32 = 0x60, 32;
    }
}

layout! {
    /// Input of SQERR2RTS_QP.
    pub struct Sqerr2rtsQpIn: "sqerr2rts_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of SQERR2RTS_QP.
    pub struct Sqerr2rtsQpOut: "sqerr2rts_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of SQD2RTS_QP.
    pub struct Sqd2rtsQpIn: "sqd2rts_qp_in", 0x110 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        opt_param_mask: u32 = 0x80, 32;
        qpc: layout(Qpc) = 0xc0;
    }
}

layout! {
    /// Output of SQD2RTS_QP.
    pub struct Sqd2rtsQpOut: "sqd2rts_qp_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QP_2ERR.
    pub struct Qp2errIn: "qp_2err_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QP_2ERR.
    pub struct Qp2errOut: "qp_2err_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of QP_2RST.
    pub struct Qp2rstIn: "qp_2rst_in", 0x10 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
    }
}

layout! {
    /// Output of QP_2RST.
    pub struct Qp2rstOut: "qp_2rst_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of ATTACH_TO_MCG.
    pub struct AttachToMcgIn: "attach_to_mcg_in", 0x20 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        multicast_gid: bytes(16) = 0x80;
    }
}

layout! {
    /// Output of ATTACH_TO_MCG.
    pub struct AttachToMcgOut: "attach_to_mcg_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Input of DETACH_FROM_MCG.
    pub struct DetachFromMcgIn: "detach_from_mcg_in", 0x20 {
        opcode: u16 = 0x0, 16;
        uid: u16 = 0x10, 16;
        op_mod: u16 = 0x30, 16;
        qpn: u32 = 0x48, 24;
        multicast_gid: bytes(16) = 0x80;
    }
}

layout! {
    /// Output of DETACH_FROM_MCG.
    pub struct DetachFromMcgOut: "detach_from_mcg_out", 0x10 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
    }
}

layout! {
    /// Queue pair context.
    pub struct Qpc: "qpc", 0xe8 {
        state: u8 = 0x0, 4;
        lag_tx_port_affinity: u8 = 0x4, 4;
        st: u8 = 0x8, 8;
        isolate_vl_tc: bool = 0x12, 1;
        pm_state: u8 = 0x13, 2;
        req_e2e_credit_mode: u8 = 0x16, 2;
        offload_type: u8 = 0x18, 4;
        end_padding_mode: u8 = 0x1c, 2;
        wq_signature: bool = 0x20, 1;
        block_lb_mc: bool = 0x21, 1;
        atomic_like_write_en: bool = 0x22, 1;
        latency_sensitive: bool = 0x23, 1;
        drain_sigerr: bool = 0x25, 1;
        dp_ordering_force: bool = 0x27, 1;
        pd: u32 = 0x28, 24;
        mtu: u8 = 0x40, 3;
        log_msg_max: u8 = 0x43, 5;
        log_rq_size: u8 = 0x49, 4;
        log_rq_stride: u8 = 0x4d, 3;
        no_sq: bool = 0x50, 1;
        log_sq_size: u8 = 0x51, 4;
        retry_mode: u8 = 0x56, 2;
        ts_format: u8 = 0x58, 2;
        rlky: bool = 0x5b, 1;
        ulp_stateless_offload_mode: u8 = 0x5c, 4;
        counter_set_id: u8 = 0x60, 8;
        uar_page: u32 = 0x68, 24;
        user_index: u32 = 0x88, 24;
        log_page_size: u8 = 0xa3, 5;
        remote_qpn: u32 = 0xa8, 24;
        primary_address_path: layout(Ads) = 0xc0;
        secondary_address_path: layout(Ads) = 0x220;
        log_ack_req_freq: u8 = 0x380, 4;
        log_sra_max: u8 = 0x388, 3;
        retry_count: u8 = 0x38d, 3;
        rnr_retry: u8 = 0x390, 3;
        fre: bool = 0x394, 1;
        cur_rnr_retry: u8 = 0x395, 3;
        cur_retry_count: u8 = 0x398, 3;
        packet_pacing_rate_limit_index: u16 = 0x3b0, 16;
        next_send_psn: u32 = 0x3c8, 24;
        log_num_dci_stream_channels: u8 = 0x3e3, 5;
        cqn_snd: u32 = 0x3e8, 24;
        log_num_dci_errored_streams: u8 = 0x403, 5;
        deth_sqpn: u32 = 0x408, 24;
        last_acked_psn: u32 = 0x448, 24;
        ssn: u32 = 0x468, 24;
        log_rra_max: u8 = 0x488, 3;
        atomic_mode: u8 = 0x48c, 4;
        rre: bool = 0x490, 1;
        rwe: bool = 0x491, 1;
        rae: bool = 0x492, 1;
        page_offset: u8 = 0x494, 6;
        dp_ordering_1: bool = 0x49c, 1;
        cd_slave_receive: bool = 0x49d, 1;
        cd_slave_send: bool = 0x49e, 1;
        cd_master: bool = 0x49f, 1;
        min_rnr_nak: u8 = 0x4a3, 5;
        next_rcv_psn: u32 = 0x4a8, 24;
        xrcd: u32 = 0x4c8, 24;
        cqn_rcv: u32 = 0x4e8, 24;
        dbr_addr: u64 = 0x500, 64;
        q_key: u32 = 0x540, 32;
        rq_type: u8 = 0x565, 3;
        srqn_rmpn_xrqn: u32 = 0x568, 24;
        rmsn: u32 = 0x588, 24;
        hw_sq_wqebb_counter: u16 = 0x5a0, 16;
        sw_sq_wqebb_counter: u16 = 0x5b0, 16;
        hw_rq_counter: u32 = 0x5c0, 32;
        sw_rq_counter: u32 = 0x5e0, 32;
        cgs: bool = 0x62f, 1;
        cs_req: u8 = 0x630, 8;
        cs_res: u8 = 0x638, 8;
        dc_access_key: u64 = 0x640, 64;
        dbr_umem_valid: bool = 0x683, 1;
    }
}

layout! {
    /// Address path.
    pub struct Ads: "ads", 0x2c {
        fl: bool = 0x0, 1;
        free_ar: bool = 0x1, 1;
        pkey_index: u16 = 0x10, 16;
        plane_index: u8 = 0x20, 8;
        grh: bool = 0x28, 1;
        mlid: u8 = 0x29, 7;
        rlid: u16 = 0x30, 16;
        ack_timeout: u8 = 0x40, 5;
        src_addr_index: u8 = 0x48, 8;
        stat_rate: u8 = 0x54, 4;
        hop_limit: u8 = 0x58, 8;
        tclass: u8 = 0x64, 8;
        flow_label: u32 = 0x6c, 20;
        rgid_rip: bytes(16) = 0x80;
        f_dscp: bool = 0x104, 1;
        f_ecn: bool = 0x105, 1;
        f_eth_prio: bool = 0x107, 1;
        ecn: u8 = 0x108, 2;
        dscp: u8 = 0x10a, 6;
        udp_sport: u16 = 0x110, 16;
        dei_cfi: bool = 0x120, 1;
        eth_prio: u8 = 0x121, 3;
        sl: u8 = 0x124, 4;
        vhca_port_num: u8 = 0x128, 8;
        rmac_47_32: u16 = 0x130, 16;
        rmac_31_0: u32 = 0x140, 32;
    }
}

crate::layout::layouts!(
    CreateQpIn,
    CreateQpOut,
    DestroyQpIn,
    DestroyQpOut,
    QueryQpIn,
    QueryQpOut,
    Rst2initQpIn,
    Rst2initQpOut,
    Init2initQpIn,
    Init2initQpOut,
    Init2rtrQpIn,
    Init2rtrQpOut,
    Rtr2rtsQpIn,
    Rtr2rtsQpOut,
    Rts2rtsQpIn,
    Rts2rtsQpOut,
    Sqerr2rtsQpIn,
    Sqerr2rtsQpOut,
    Sqd2rtsQpIn,
    Sqd2rtsQpOut,
    Qp2errIn,
    Qp2errOut,
    Qp2rstIn,
    Qp2rstOut,
    AttachToMcgIn,
    AttachToMcgOut,
    DetachFromMcgIn,
    DetachFromMcgOut,
    Qpc,
    Ads
);
