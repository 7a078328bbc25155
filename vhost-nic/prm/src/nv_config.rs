//! MNVDA: items of the configuration in flash (TLVs). The kernel declares them in
//! drivers/net/ethernet/mellanox/mlx5/core/lib/nv_param.c. Which function an item is for is part of `parameter_index`.

use crate::layout::layout;

layout! {
    /// Header of a configuration item.
    pub struct ConfigItem: "config_item", 0xc {
        valid: u8 = 0x0, 2;
        priority: u8 = 0x2, 2;
        header_type: u8 = 0x4, 2;
        ovr_en: bool = 0x6, 1;
        rd_en: bool = 0x7, 1;
        access_mode: u8 = 0x8, 2;
        writer_id: u8 = 0xb, 5;
        version: u8 = 0x10, 4;
        host_id_valid: bool = 0x16, 1;
        length: u16 = 0x17, 9;
        type_class: u8 = 0x20, 8;
        parameter_index: u32 = 0x28, 24;
        crc16: u16 = 0x50, 16;
    }
}

layout! {
    /// MNVDA: a configuration item.
    pub struct MnvdaReg: "mnvda_reg", 0x10c {
        configuration_item_header: layout(ConfigItem) = 0x0;
        configuration_item_data: bytes(256) = 0x60;
    }
}

layout! {
    /// Configuration of offloads.
    pub struct NvSwOffloadConf: "nv_sw_offload_conf", 0x8 {
        ip_over_vxlan_port: u16 = 0x0, 16;
        tunnel_ecn_copy_offload_disable: bool = 0x10, 1;
        pci_atomic_mode: u8 = 0x11, 3;
        sr_enable: bool = 0x14, 1;
        ptp_cyc2realtime: bool = 0x15, 1;
        vector_calc_disable: bool = 0x16, 1;
        uctx_en: bool = 0x17, 1;
        prio_tag_required_en: bool = 0x18, 1;
        esw_fdb_ipv4_ttl_modify_enable: bool = 0x19, 1;
        mkey_by_name: bool = 0x1a, 1;
        ip_over_vxlan_en: bool = 0x1b, 1;
        one_qp_per_recovery: bool = 0x1c, 1;
        cqe_compression: u8 = 0x1d, 3;
        tunnel_udp_entropy_proto_disable: bool = 0x20, 1;
        ar_enable: bool = 0x22, 1;
        log_max_outstanding_wqe: u8 = 0x23, 5;
        vf_migration: u8 = 0x28, 2;
        log_tx_psn_win: u8 = 0x2a, 6;
        lro_log_timeout3: u8 = 0x30, 4;
        lro_log_timeout2: u8 = 0x34, 4;
        lro_log_timeout1: u8 = 0x38, 4;
        lro_log_timeout0: u8 = 0x3c, 4;
    }
}

layout! {
    /// Addresses of the adapter. The kernel does not read them; fields are those of mstflint's `nv_base_mac_guid`.
    pub struct NvBaseMacGuid: "nv_base_mac_guid", 0x10 {
        base_mac: u64 = 0x0, 64;
        base_guid: u64 = 0x40, 64;
    }
}

layout! {
    /// Numbers of addresses of the adapter (mstflint's `nv_base_mac_guid_cap`).
    pub struct NvBaseMacGuidCap: "nv_base_mac_guid_cap", 0x8 {
        mac_en: bool = 0x0, 1;
        guid_en: bool = 0x1, 1;
        num_of_allocated_guids: u16 = 0x20, 16;
        num_of_allocated_macs: u16 = 0x30, 16;
    }
}

layout! {
    /// Link type of a port (mstflint's `nv_vpi_link_type`).
    pub struct NvVpiLinkType: "nv_vpi_link_type", 0x4 {
        default_link_type: u8 = 0x1c, 2;
    }
}

layout! {
    /// Configuration of PCI functions.
    pub struct NvGlobalPciConf: "nv_global_pci_conf", 0xc {
        sriov_valid: bool = 0x0, 1;
        per_pf_num_sf: bool = 0xb, 1;
        per_pf_total_vf: bool = 0x11, 1;
        sriov_en: bool = 0x20, 1;
        total_vfs: u16 = 0x30, 16;
    }
}

layout! {
    /// Capabilities of PCI functions.
    pub struct NvGlobalPciCap: "nv_global_pci_cap", 0x14 {
        max_vfs_per_pf_valid: bool = 0x0, 1;
        per_pf_total_vf_supported: bool = 0x14, 1;
        sriov_support: bool = 0x20, 1;
        max_vfs_per_pf: u16 = 0x30, 16;
    }
}

layout! {
    /// Configuration of one PCI function.
    pub struct NvPfPciConf: "nv_pf_pci_conf", 0x10 {
        log_sf_bar_size: u8 = 0x0, 8;
        pf_total_sf_en: bool = 0x8, 1;
        pf_total_vf_en: bool = 0x9, 1;
        total_sf: u16 = 0x10, 16;
        total_vf: u16 = 0x50, 16;
    }
}

layout! {
    /// Capabilities of offloads.
    pub struct NvSwOffloadCap: "nv_sw_offload_cap", 0x4 {
        swp_l4_csum_mode_l4_only: bool = 0x19, 1;
    }
}

layout! {
    /// Configuration of offload accelerators.
    pub struct NvSwAccelerateConf: "nv_sw_accelerate_conf", 0x8 {
        swp_l4_csum_mode: u8 = 0x0, 2;
    }
}
