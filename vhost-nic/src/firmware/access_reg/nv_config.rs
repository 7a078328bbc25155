//! MNVDA, MNVQC and MNVGC: configuration in flash, which takes effect at a reset (`devlink dev param`, mstconfig). Only
//! the type of CQE compression can be changed.

use mlx5_prm::layout::Layout;
use mlx5_prm::nv_config::*;
use mlx5_prm::tool_reg::{MnvgcReg, MnvqcReg};
use zerocopy::{FromBytes, IntoBytes};

use super::register;
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::cq::CompressionType;

/// Configuration in flash. It outlives resets of the function.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::firmware) struct NvConfig {
    /// In force since the last reset.
    current: Values,
    /// From the next reset on.
    next: Values,
}

#[derive(Debug, Default, Clone, Copy)]
struct Values {
    /// Balanced or aggressive (`cqe_compress_str`, core/lib/nv_param.c).
    cqe_compression: u8,
}

const AGGRESSIVE: u8 = 1;

impl NvConfig {
    /// Type of CQE compression in force.
    pub(in crate::firmware) fn compression(&self) -> CompressionType {
        match self.current.cqe_compression {
            AGGRESSIVE => CompressionType::Aggressive,
            _ => CompressionType::Balanced,
        }
    }

    /// Puts the configuration in flash in force.
    pub(in crate::firmware) fn reset(&mut self) {
        self.current = self.next;
    }
}

/// Items, as `type_class` and `parameter_index` (`MLX5_CLASS_*_CTRL_ID_*`, core/lib/nv_param.c; others of mstconfig).
mod item {
    pub(super) const BASE_MAC_GUID: (u8, u32) = (0, 0x2);
    pub(super) const BASE_MAC_GUID_CAP: (u8, u32) = (0, 0x3);
    pub(super) const GLOBAL_PCI_CONF: (u8, u32) = (0, 0x80);
    pub(super) const GLOBAL_PCI_CAP: (u8, u32) = (0, 0x81);
    pub(super) const SW_OFFLOAD_CONF: (u8, u32) = (0, 0x10a);
    pub(super) const SW_OFFLOAD_CAP: (u8, u32) = (0, 0x10b);
    pub(super) const SW_ACCELERATE_CONF: (u8, u32) = (0, 0x11d);
    /// Of port 1, whose number is in bits 23:16.
    pub(super) const VPI_LINK_TYPE: (u8, u32) = (2, 1 << 16 | 0x12);
    pub(super) const PF_PCI_CONF: (u8, u32) = (3, 0x80);
    pub(super) const ALL: [(u8, u32); 9] = [
        BASE_MAC_GUID,
        BASE_MAC_GUID_CAP,
        GLOBAL_PCI_CONF,
        GLOBAL_PCI_CAP,
        SW_OFFLOAD_CONF,
        SW_OFFLOAD_CAP,
        SW_ACCELERATE_CONF,
        VPI_LINK_TYPE,
        PF_PCI_CONF,
    ];
}
/// Class of items of one function, whose index holds the function's (`*_per_host_pf_bits`).
const PER_HOST_PF: u8 = 3;
const PF_PARAMETER: u32 = 0x3ff;
/// `MLX5_ACCESS_MODE_*` (core/lib/nv_param.c).
const CURRENT: u8 = 1;
const DEFAULT: u8 = 2;
/// Ethernet as a link type (mstconfig's `LINK_TYPE`).
const ETHERNET: u8 = 2;
/// Number of MAC addresses and of GUIDs.
const ADDRESSES: u16 = 1;

pub(super) fn mnvda(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let mut item: MnvdaReg = register(data);
    let header = item.configuration_item_header();
    let (class, index, access_mode) = (header.type_class(), header.parameter_index(), header.access_mode());
    let key = match class {
        PER_HOST_PF if index & !PF_PARAMETER != 0 => return Err(bad_parameter("there is no such function")),
        _ => (class, index),
    };
    let mut config = firmware.nv_config.lock();
    if write {
        return set(&mut config, key, &item).map(|()| item.as_bytes().to_vec());
    }
    let values = match access_mode {
        CURRENT => config.current,
        DEFAULT => Values::default(),
        _ => config.next,
    };
    let length = match key {
        item::SW_OFFLOAD_CONF => {
            let mut offloads = NvSwOffloadConf::default();
            offloads.set_cqe_compression(values.cqe_compression);
            put(&mut item, &offloads)
        }
        item::BASE_MAC_GUID => {
            let mac = firmware.hca.vport.read().permanent;
            let mut addresses = NvBaseMacGuid::default();
            addresses.set_base_mac(mac.0.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
            addresses.set_base_guid(mac.to_eui64());
            put(&mut item, &addresses)
        }
        item::BASE_MAC_GUID_CAP => {
            let mut numbers = NvBaseMacGuidCap::default();
            numbers.set_num_of_allocated_macs(ADDRESSES);
            numbers.set_num_of_allocated_guids(ADDRESSES);
            put(&mut item, &numbers)
        }
        item::VPI_LINK_TYPE => {
            let mut link = NvVpiLinkType::default();
            link.set_default_link_type(ETHERNET);
            put(&mut item, &link)
        }
        // No virtual functions, no sub-functions, no parsing by software.
        item::GLOBAL_PCI_CONF => blank::<NvGlobalPciConf>(&mut item),
        item::GLOBAL_PCI_CAP => blank::<NvGlobalPciCap>(&mut item),
        item::SW_OFFLOAD_CAP => blank::<NvSwOffloadCap>(&mut item),
        item::SW_ACCELERATE_CONF => blank::<NvSwAccelerateConf>(&mut item),
        item::PF_PCI_CONF => blank::<NvPfPciConf>(&mut item),
        _ => return Err(bad_parameter("there is no such configuration item")),
    };
    item.configuration_item_header_mut().set_length(length as u16);
    Ok(item.as_bytes().to_vec())
}

/// Writes the data of an item and returns their length in bytes.
fn put<T: Layout>(item: &mut MnvdaReg, data: &T) -> usize {
    item.configuration_item_data_mut()[..T::SIZE].copy_from_slice(data.as_bytes());
    T::SIZE
}

/// Clears an item of a layout and returns its length in bytes.
fn blank<T: Layout + Default>(item: &mut MnvdaReg) -> usize {
    put(item, &T::default())
}

pub(super) fn mnvqc(_: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the register is read-only"));
    }
    let mut item: MnvqcReg = register(data);
    let key = (item.type_class(), item.parameter_index());
    item.set_version(0);
    item.set_support_rd(item::ALL.contains(&key));
    item.set_support_wr(key == item::SW_OFFLOAD_CONF);
    Ok(item.as_bytes().to_vec())
}

pub(super) fn mnvgc(write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the register is read-only"));
    }
    let mut reply = MnvgcReg::default();
    reply.set_nvda_read_current_settings(true);
    reply.set_nvda_read_factory_settings(true);
    Ok(reply.as_bytes().to_vec())
}

fn set(config: &mut NvConfig, key: (u8, u32), item: &MnvdaReg) -> Result<()> {
    let refused = Err(bad_parameter("the configuration item cannot be set to that"));
    let (item::SW_OFFLOAD_CONF, Ok((wanted, _))) =
        (key, NvSwOffloadConf::ref_from_prefix(item.configuration_item_data()))
    else {
        return refused;
    };
    let mut rest = wanted.clone();
    rest.set_cqe_compression(0);
    if rest != NvSwOffloadConf::default() || wanted.cqe_compression() > AGGRESSIVE {
        return refused;
    }
    config.next.cqe_compression = wanted.cqe_compression();
    Ok(())
}
