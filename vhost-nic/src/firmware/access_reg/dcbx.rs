//! DCBX_PARAM: who negotiates with the other end. The switch behind the port speaks no LLDP, so that the firmware hears
//! of no other end.

use mlx5_prm::qos_reg::DcbxParam;
use zerocopy::IntoBytes;

use super::ets::CLASSES;
use super::{PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::priority::PRIORITIES;

/// Versions (`enum mlx5_dcbx_oper_mode`, driver.h): the host negotiates; CEE; IEEE; the firmware chooses.
const HOST: u8 = 0;
const AUTO: u8 = 3;

/// Settings of the administrator.
#[derive(Debug, Default)]
pub(super) struct Dcbx {
    version: u8,
    willing: bool,
}

pub(super) fn dcbx_param(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: DcbxParam = register(data);
    check_port(requested.port_number())?;
    let dcbx = &mut firmware.registers.lock().dcbx;
    if write {
        if requested.version_admin() > AUTO {
            return Err(bad_parameter("there is no such version of DCBX"));
        }
        *dcbx = Dcbx {
            version: requested.version_admin(),
            willing: requested.willing_admin() && requested.version_admin() != HOST,
        };
    }
    let mut reply = DcbxParam::default();
    reply.set_dcbx_cee_cap(true);
    reply.set_dcbx_ieee_cap(true);
    reply.set_port_number(PORT);
    reply.set_version_oper(dcbx.version);
    reply.set_version_admin(dcbx.version);
    reply.set_willing_admin(dcbx.willing);
    reply.set_pfc_cap_oper(PRIORITIES as u8);
    reply.set_pfc_cap_admin(PRIORITIES as u8);
    reply.set_num_of_tc_oper(CLASSES as u8);
    reply.set_num_of_tc_admin(CLASSES as u8);
    Ok(reply.as_bytes().to_vec())
}
