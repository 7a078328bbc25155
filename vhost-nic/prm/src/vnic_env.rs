//! QUERY_VNIC_ENV: diagnostic counters of a vport.

use crate::layout::layout;

layout! {
    /// Input of QUERY_VNIC_ENV.
    pub struct QueryVnicEnvIn: "query_vnic_env_in", 0x10 {
        opcode: u16 = 0x0, 16;
        op_mod: u16 = 0x30, 16;
        other_vport: bool = 0x40, 1;
        vport_number: u16 = 0x50, 16;
    }
}

layout! {
    /// Diagnostic counters of a vport.
    pub struct VnicDiagnosticStatistics: "vnic_diagnostic_statistics", 0x200 {
        counter_error_queues: u32 = 0x0, 32;
        total_error_queues: u32 = 0x20, 32;
        send_queue_priority_update_flow: u32 = 0x40, 32;
        nic_receive_steering_discard: u64 = 0x80, 64;
        receive_discard_vport_down: u64 = 0xc0, 64;
        transmit_discard_vport_down: u64 = 0x100, 64;
        async_eq_overrun: u32 = 0x140, 32;
        comp_eq_overrun: u32 = 0x160, 32;
        invalid_command: u32 = 0x1a0, 32;
        quota_exceeded_command: u32 = 0x1c0, 32;
        internal_rq_out_of_buffer: u32 = 0x1e0, 32;
        cq_overrun: u32 = 0x200, 32;
        eth_wqe_too_small: u32 = 0x220, 32;
        generated_pkt_steering_fail: u64 = 0x300, 64;
        handled_pkt_steering_fail: u64 = 0x340, 64;
        bar_uar_access: u32 = 0x380, 32;
        odp_local_triggered_page_fault: u32 = 0x3a0, 32;
        odp_remote_triggered_page_fault: u32 = 0x3c0, 32;
    }
}

layout! {
    /// Output of QUERY_VNIC_ENV.
    pub struct QueryVnicEnvOut: "query_vnic_env_out", 0x210 {
        status: u8 = 0x0, 8;
        syndrome: u32 = 0x20, 32;
        vport_env: layout(VnicDiagnosticStatistics) = 0x80;
    }
}

crate::layout::layouts!(QueryVnicEnvIn, VnicDiagnosticStatistics, QueryVnicEnvOut);
