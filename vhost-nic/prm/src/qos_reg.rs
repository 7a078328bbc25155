//! Registers of quality of service: trust, traffic classes, their shares and rates, DCBX.

use crate::layout::layout;

layout! {
    /// QPTS: what gives a received frame its priority.
    pub struct QptsReg: "qpts_reg", 0x8 {
        local_port: u8 = 0x8, 8;
        trust_state: u8 = 0x3d, 3;
    }
}

layout! {
    /// QPDPM: priority of each DSCP, in entries of 16 bits: enable in bit 15, priority in bits 3:0.
    pub struct QpdpmReg: "qpdpm_reg", 0x84 {
        local_port: u8 = 0x8, 8;
        dscp: bytes(128) = 0x20;
    }
}

layout! {
    /// QTCT: traffic class of a priority.
    pub struct QtctReg: "qtct_reg", 0x8 {
        port_number: u8 = 0x8, 8;
        prio: u8 = 0x1d, 3;
        tclass: u8 = 0x3d, 3;
    }
}

layout! {
    /// Share and rate of a traffic class, in QETCR.
    pub struct EtsTcnConfigReg: "ets_tcn_config_reg", 0x8 {
        g: bool = 0x0, 1;
        b: bool = 0x1, 1;
        r: bool = 0x2, 1;
        group: u8 = 0xc, 4;
        bw_allocation: u8 = 0x19, 7;
        max_bw_units: u8 = 0x2c, 4;
        max_bw_value: u16 = 0x30, 16;
    }
}

layout! {
    /// Rate of the port, in QETCR.
    pub struct EtsGlobalConfigReg: "ets_global_config_reg", 0x8 {
        r: bool = 0x2, 1;
        max_bw_units: u8 = 0x2c, 4;
        max_bw_value: u8 = 0x38, 8;
    }
}

layout! {
    /// QETCR: enhanced transmission selection; eight [`EtsTcnConfigReg`].
    pub struct QetcReg: "qetc_reg", 0x50 {
        port_number: u8 = 0x8, 8;
        tc_configuration: bytes(64) = 0x40;
        global_configuration: layout(EtsGlobalConfigReg) = 0x240;
    }
}

layout! {
    /// DCBX_PARAM: negotiation of these settings with the other end.
    pub struct DcbxParam: "dcbx_param", 0x40 {
        dcbx_cee_cap: bool = 0x0, 1;
        dcbx_ieee_cap: bool = 0x1, 1;
        dcbx_standby_cap: bool = 0x2, 1;
        port_number: u8 = 0x8, 8;
        max_application_table_size: u8 = 0x1a, 6;
        version_oper: u8 = 0x35, 3;
        version_admin: u8 = 0x3d, 3;
        willing_admin: bool = 0x40, 1;
        pfc_cap_oper: u8 = 0x44, 4;
        pfc_cap_admin: u8 = 0x4c, 4;
        num_of_tc_oper: u8 = 0x54, 4;
        num_of_tc_admin: u8 = 0x5c, 4;
        remote_willing: bool = 0x60, 1;
        remote_pfc_cap: u8 = 0x64, 4;
        remote_num_of_tc: u8 = 0x7c, 4;
        error: u8 = 0x98, 8;
    }
}

layout! {
    /// QCAM: capabilities mask of quality of service.
    pub struct QcamReg: "qcam_reg", 0x48 {
        feature_group: u8 = 0x8, 8;
        access_reg_group: u8 = 0x18, 8;
        reg_cap: bytes(16) = 0x40;
        feature_cap: bytes(16) = 0x140;
    }
}

crate::layout::layouts!(
    QptsReg,
    QpdpmReg,
    QtctReg,
    EtsTcnConfigReg,
    EtsGlobalConfigReg,
    QetcReg,
    DcbxParam,
    QcamReg,
);
