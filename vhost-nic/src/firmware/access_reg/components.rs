//! Firmware components: MCQS, MCQI, MCC, MCDA and MFRL. The boot image is the only one, and can neither be replaced nor
//! read. That there are these registers lets the vendor's tools ask the firmware, not the flash that is not there
//! (`FwCompsMgr::getFwSupport`, mstflint's fw_comps_mgr.cpp).

use mlx5_prm::management_reg::{MccReg, McqiActivationMethod, McqiCap, McqiReg, McqiVersion, McqsReg, MfrlReg};
use zerocopy::IntoBytes;

use super::register;
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::firmware::version::VERSION;

/// Index of the boot image.
const BOOT_IMAGE: u16 = 0;
/// `MCQS_IDENTIFIER_BOOT_IMG` (core/fw.c).
const BOOT_IMAGE_IDENTIFIER: u16 = 1;
/// `component_status` of MCQS: the component is there.
const PRESENT: u8 = 1;
/// Kinds of information (`MCQI_INFO_TYPE_*`, core/fw.c).
mod info {
    pub(super) const CAPABILITIES: u8 = 0;
    pub(super) const VERSION: u8 = 1;
    pub(super) const ACTIVATION_METHOD: u8 = 5;
}
/// `MLX5_MFRL_REG_RESET_LEVEL6` (mlx5_ifc.h): a warm reboot of the machine activates new firmware. The driver resets no
/// function for that (`mlx5_devlink_reload_fw_activate`, core/devlink.c).
const WARM_REBOOT: u8 = 1 << 6;

fn check(component: u16, write: bool) -> Result<()> {
    if component != BOOT_IMAGE {
        return Err(bad_parameter("there is no such firmware component"));
    }
    match write {
        true => Err(bad_parameter("the register is read-only")),
        false => Ok(()),
    }
}

pub(super) fn mcqs(_: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: McqsReg = register(data);
    check(requested.component_index(), write)?;
    let mut reply = McqsReg::default();
    reply.set_last_index_flag(true);
    reply.set_component_index(BOOT_IMAGE);
    reply.set_identifier(BOOT_IMAGE_IDENTIFIER);
    reply.set_component_status(PRESENT);
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn mcqi(_: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: McqiReg = register(data);
    check(requested.component_index(), write)?;
    let about = match requested.info_type() {
        info::CAPABILITIES => {
            let mut capabilities = McqiCap::default();
            capabilities.set_supported_info_bitmask(
                1 << info::CAPABILITIES | 1 << info::VERSION | 1 << info::ACTIVATION_METHOD,
            );
            capabilities.as_bytes().to_vec()
        }
        // No version is pending: that in flash runs.
        info::VERSION => version().as_bytes().to_vec(),
        info::ACTIVATION_METHOD => McqiActivationMethod::default().as_bytes().to_vec(),
        _ => return Err(bad_parameter("there is no such information about a component")),
    };
    let mut reply = McqiReg::default();
    reply.set_read_pending_component(requested.read_pending_component());
    reply.set_component_index(BOOT_IMAGE);
    reply.set_info_type(requested.info_type());
    reply.set_info_size(about.len() as u32);
    reply.set_offset(requested.offset());
    let part = about.get(requested.offset() as usize..).unwrap_or_default();
    let part = &part[..part.len().min(requested.data_size().into())];
    reply.set_data_size(part.len() as u16);
    Ok([reply.as_bytes(), part].concat())
}

fn version() -> McqiVersion {
    let mut version = McqiVersion::default();
    let text = VERSION.to_string();
    version.set_version(VERSION.encoded());
    version.set_version_string_length(text.len() as u8);
    for (to, from) in version.version_string_mut().iter_mut().zip(text.bytes()) {
        *to = from;
    }
    version
}

/// The update of a component is idle, and stays so.
pub(super) fn mcc(_: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: MccReg = register(data);
    check(requested.component_index(), write)?;
    Ok(MccReg::default().as_bytes().to_vec())
}

pub(super) fn mcda() -> Result<Vec<u8>> {
    Err(bad_parameter("no component is read or written"))
}

pub(super) fn mfrl(write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the firmware cannot be reset"));
    }
    let mut reply = MfrlReg::default();
    reply.set_reset_level(WARM_REBOOT);
    Ok(reply.as_bytes().to_vec())
}
