//! Registers that the vendor's tools read. The kernel has no layout of them: fields stand where mstflint has them
//! (tools_layouts/reg_access_hca_layouts.c, and its register_access_table.adb).

use crate::layout::layout;

layout! {
    /// MGIR: general information about adapter, firmware and boot code.
    pub struct MgirReg: "mgir_reg", 0xa0 {
        device_hw_revision: u16 = 0x0, 16;
        device_id: u16 = 0x10, 16;
        num_ports: u8 = 0x28, 8;
        technology: u8 = 0x30, 5;
        pvs: u8 = 0x3b, 5;
        hw_dev_id: u16 = 0x50, 16;
        manufacturing_base_mac_47_32: u16 = 0x90, 16;
        manufacturing_base_mac_31_0: u32 = 0xa0, 32;
        uptime: u32 = 0xe0, 32;
        secured: bool = 0x107, 1;
        major: u8 = 0x108, 8;
        minor: u8 = 0x110, 8;
        sub_minor: u8 = 0x118, 8;
        build_id: u32 = 0x120, 32;
        month: u8 = 0x140, 8;
        day: u8 = 0x148, 8;
        year: u16 = 0x150, 16;
        hour: u16 = 0x170, 16;
        psid: bytes(16) = 0x180;
        ini_file_version: u32 = 0x200, 32;
        extended_major: u32 = 0x220, 32;
        extended_minor: u32 = 0x240, 32;
        extended_sub_minor: u32 = 0x260, 32;
    }
}

layout! {
    /// MQIS: a string about the adapter, in parts.
    pub struct MqisReg: "mqis_reg", 0x18 {
        info_type: u8 = 0x18, 8;
        info_length: u16 = 0x30, 16;
        read_offset: u16 = 0x40, 16;
        read_length: u16 = 0x50, 16;
        info_string: bytes(8) = 0x80;
    }
}

layout! {
    /// MNVQC: whether a configuration item can be read and written.
    pub struct MnvqcReg: "mnvqc_reg", 0x8 {
        type_class: u8 = 0x0, 8;
        parameter_index: u32 = 0x8, 24;
        version: u8 = 0x38, 4;
        support_wr: bool = 0x3e, 1;
        support_rd: bool = 0x3f, 1;
    }
}

layout! {
    /// MNVGC: which values of configuration items can be read.
    pub struct MnvgcReg: "mnvgc_reg", 0x10 {
        priv_nv_other_host: bool = 0x1d, 1;
        nvda_read_current_settings: bool = 0x1e, 1;
        nvda_read_factory_settings: bool = 0x1f, 1;
    }
}

layout! {
    /// Page of PDDR: what the port does.
    pub struct PddrOperationInfoPage: "pddr_operation_info_page", 0xf8 {
        proto_active: u8 = 0x8, 4;
        neg_mode_active: u8 = 0xc, 4;
        phy_mngr_fsm_state: u8 = 0x20, 8;
        eth_an_fsm_state: u8 = 0x28, 8;
        ib_phy_fsm_state: u8 = 0x30, 8;
        phy_manager_link_enabled: u32 = 0x40, 32;
        core_to_phy_link_enabled: u32 = 0x60, 32;
        cable_proto_cap: u32 = 0x80, 32;
        link_active: u32 = 0xa0, 32;
        loopback_mode: u16 = 0xd4, 12;
        fec_mode_active: u16 = 0xe0, 16;
        fec_mode_request: u16 = 0xf0, 16;
    }
}

layout! {
    /// Page of PDDR: the module.
    pub struct PddrModuleInfo: "pddr_module_info", 0xf8 {
        cable_technology: u8 = 0x0, 8;
        cable_breakout: u8 = 0x8, 8;
        ext_ethernet_compliance_code: u8 = 0x10, 8;
        ethernet_compliance_code: u8 = 0x18, 8;
        cable_type: u8 = 0x20, 4;
        cable_vendor: u8 = 0x24, 4;
        cable_length: u8 = 0x28, 8;
        cable_identifier: u8 = 0x30, 8;
        cable_power_class: u8 = 0x38, 8;
        cable_attenuation_25g: u8 = 0x60, 8;
        cable_attenuation_12g: u8 = 0x68, 8;
        cable_attenuation_7g: u8 = 0x70, 8;
        cable_attenuation_5g: u8 = 0x78, 8;
        vendor_name: bytes(16) = 0xa0;
        vendor_pn: bytes(16) = 0x120;
        vendor_rev: bytes(4) = 0x1a0;
        vendor_sn: bytes(16) = 0x1e0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn fields_stand_where_mstflint_has_them() {
        let mut information = MgirReg::default();
        information.set_device_id(0x1017);
        information.set_num_ports(1);
        information.set_hw_dev_id(0x20d);
        information.psid_mut().copy_from_slice(b"0123456789abcdef");
        information.set_extended_sub_minor(4030);
        let bytes = information.as_bytes();
        assert_eq!(
            (&bytes[2..4], bytes[5], &bytes[10..12]),
            (&[0x10, 0x17][..], 1, &[2, 0x0d][..])
        );
        assert_eq!(
            (&bytes[0x30..0x32], &bytes[0x4c..0x50]),
            (&b"01"[..], &[0, 0, 0xf, 0xbe][..])
        );

        let mut page = PddrOperationInfoPage::default();
        page.set_proto_active(4);
        page.set_phy_mngr_fsm_state(3);
        page.set_fec_mode_active(2);
        let bytes = page.as_bytes();
        assert_eq!((bytes[1], bytes[4], &bytes[0x1c..0x1e]), (0x40, 3, &[0, 2][..]));

        let mut module = PddrModuleInfo::default();
        module.set_cable_type(3);
        module.set_cable_length(1);
        module.vendor_sn_mut()[0] = b'S';
        let bytes = module.as_bytes();
        assert_eq!((bytes[4], bytes[5], bytes[0x3c]), (0x30, 1, b'S'));
    }
}
