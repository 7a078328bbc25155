//! PPLM: forward error correction (FEC). The link has no errors to correct; the modes are those of a copper cable.

use mlx5_prm::access_reg::PplmReg;
use mlx5_prm::layout::{self, Layout};
use zerocopy::IntoBytes;

use super::{PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};

/// Modes, a bit each (`enum` of `MLX5E_FEC_*`, core/en/port.h). In the fields of the administrator, none of them leaves
/// the choice to the firmware.
mod mode {
    pub(super) const NONE: u8 = 1 << 0;
    pub(super) const FIRECODE: u8 = 1 << 1;
    pub(super) const REED_SOLOMON: u8 = 1 << 2;
}

/// Modes that the administrator chose for each speed, in the fields `fec_override_admin_*`.
#[derive(Debug, Default)]
pub(super) struct Fec(PplmReg);

/// Returns the register with the modes that the port supports.
fn supported() -> PplmReg {
    let mut register = PplmReg::default();
    register.set_fec_override_cap_10g_40g(mode::NONE | mode::FIRECODE);
    register.set_fec_override_cap_25g(mode::NONE | mode::FIRECODE | mode::REED_SOLOMON);
    register.set_fec_override_cap_50g(mode::NONE | mode::FIRECODE | mode::REED_SOLOMON);
    register.set_fec_override_cap_100g(mode::NONE | mode::REED_SOLOMON);
    register
}

impl Fec {
    /// Sets the modes in `new`. Fails, without effect, if the port does not support one, or they are several for a
    /// speed.
    fn write(&mut self, new: &PplmReg) -> Result<()> {
        let supported = supported();
        let mut written = PplmReg::default();
        for admin in PplmReg::FIELDS {
            let Some(speed) = admin.name.strip_prefix("fec_override_admin_") else {
                continue;
            };
            let is_capability = |name: &str| name.strip_prefix("fec_override_cap_") == Some(speed);
            let capability = PplmReg::FIELDS.iter().find(|field| is_capability(field.name));
            let offered = capability.map_or(0, |field| layout::get(supported.as_bytes(), field.offset, field.width));
            let chosen = layout::get(new.as_bytes(), admin.offset, admin.width);
            if chosen & !offered != 0 || chosen.count_ones() > 1 {
                return Err(bad_parameter("the port does not support that FEC mode"));
            }
            layout::set(written.as_mut_bytes(), admin.offset, admin.width, chosen);
        }
        self.0 = written;
        Ok(())
    }

    /// Returns the mode of a link with a speed in Gb/s; 0 without a link.
    pub(super) fn active(&self, gbps: u32) -> u8 {
        let (chosen, default) = match gbps {
            0 => return 0,
            100 => (self.0.fec_override_admin_100g(), mode::REED_SOLOMON),
            50 => (self.0.fec_override_admin_50g(), mode::REED_SOLOMON),
            25 => (self.0.fec_override_admin_25g(), mode::REED_SOLOMON),
            10 | 40 => (self.0.fec_override_admin_10g_40g(), mode::NONE),
            _ => (0, mode::NONE),
        };
        if chosen == 0 { default } else { chosen }
    }
}

pub(super) fn pplm(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PplmReg = register(data);
    check_port(requested.local_port())?;
    let fec = &mut firmware.registers.lock().fec;
    if write {
        fec.write(&requested)?;
    }
    // No two of these fields overlap.
    let mut reply = supported();
    for (to, from) in reply.as_mut_bytes().iter_mut().zip(fec.0.as_bytes()) {
        *to |= from;
    }
    reply.set_local_port(PORT);
    reply.set_fec_mode_active(fec.active(firmware.hca.port.state().speed()).into());
    Ok(reply.as_bytes().to_vec())
}
