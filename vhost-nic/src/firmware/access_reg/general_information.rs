//! MGIR and MQIS: what the vendor's tools print about an adapter and its firmware.

use mlx5_prm::tool_reg::{MgirReg, MqisReg};
use zerocopy::IntoBytes;

use super::{LANE_TECHNOLOGY, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::firmware::init_hca::PSID;
use crate::firmware::version::VERSION;
use crate::pci::Identity;

/// Strings of MQIS (`MQISDeviceDescriptionT`, mstflint's fw_comps_mgr.h): name, description. The others, from flash and
/// boot code, are empty.
mod text {
    pub(super) const NAME: u8 = 1;
    pub(super) const DESCRIPTION: u8 = 2;
    pub(super) const LAST: u8 = 5;
}

pub(super) fn mgir(firmware: &Firmware, write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the register is read-only"));
    }
    let mac = firmware.hca.vport.read().permanent.0;
    let mac = mac.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let mut reply = MgirReg::default();
    reply.set_device_id(firmware.identity.device_id());
    reply.set_hw_dev_id(firmware.identity.hardware_id() as u16);
    reply.set_num_ports(1);
    reply.set_technology(LANE_TECHNOLOGY);
    reply.set_manufacturing_base_mac_47_32((mac >> 32) as u16);
    reply.set_manufacturing_base_mac_31_0(mac as u32);
    reply.set_major(VERSION.major);
    reply.set_minor(VERSION.minor);
    // Eight bits do not hold it; the extended number does.
    reply.set_sub_minor(VERSION.subminor as u8);
    *reply.psid_mut() = *PSID;
    reply.set_extended_major(VERSION.major.into());
    reply.set_extended_minor(VERSION.minor.into());
    reply.set_extended_sub_minor(VERSION.subminor.into());
    Ok(reply.as_bytes().to_vec())
}

/// Returns a string about an adapter.
fn describe(identity: Identity, kind: u8) -> String {
    match kind {
        text::NAME => "VHOST-NIC".to_owned(),
        text::DESCRIPTION => format!("{} (vhost-nic)", identity.product()),
        _ => String::new(),
    }
}

pub(super) fn mqis(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the register is read-only"));
    }
    let requested: MqisReg = register(data);
    if !(text::NAME..=text::LAST).contains(&requested.info_type()) {
        return Err(bad_parameter("there is no such string"));
    }
    let text = describe(firmware.identity, requested.info_type());
    let mut reply = MqisReg::default();
    reply.set_info_type(requested.info_type());
    reply.set_info_length(text.len() as u16);
    reply.set_read_offset(requested.read_offset());
    let part = text
        .as_bytes()
        .get(requested.read_offset().into()..)
        .unwrap_or_default();
    let length = part
        .len()
        .min(requested.read_length().into())
        .min(reply.info_string().len());
    reply.set_read_length(length as u16);
    reply.info_string_mut()[..length].copy_from_slice(&part[..length]);
    Ok(reply.as_bytes().to_vec())
}
