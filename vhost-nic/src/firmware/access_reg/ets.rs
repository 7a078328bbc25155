//! QTCT and QETCR: the traffic class of a priority, and the shares and rates of the classes. They are kept; the switch
//! behind the port has no queues to share, and limits no rate.

use mlx5_prm::qos_reg::{EtsTcnConfigReg, QetcReg, QtctReg};
use zerocopy::{FromBytes, IntoBytes};

use super::{PORT, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::priority::PRIORITIES;

/// Number of traffic classes (`max_tc`).
pub(super) const CLASSES: usize = 8;
/// Highest group: its classes share no bandwidth with others (`MLX5E_VENDOR_TC_GROUP_NUM`, core/en_dcbnl.c).
const LAST_GROUP: u8 = 7;
/// Percentage of the whole bandwidth.
const ALL: u8 = 100;
/// Units of rates (`enum` of `MLX5_BW_NO_LIMIT`, device.h): none, 100 Mb/s, 1 Gb/s.
const NO_LIMIT: u8 = 0;
const HUNDRED_MEGABITS: u8 = 3;
const GIGABITS: u8 = 4;
/// Highest rate, without `qetcr_qshr_max_bw_val_msb` in QCAM.
const MAX_RATE: u16 = 0xff;

/// A rate as written: value and unit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Rate {
    value: u16,
    unit: u8,
}

impl Rate {
    fn check(self) -> Result<Self> {
        match (self.unit, self.value) {
            (NO_LIMIT, _) => Ok(Self::default()),
            (HUNDRED_MEGABITS | GIGABITS, 1..=MAX_RATE) => Ok(self),
            (HUNDRED_MEGABITS | GIGABITS, _) => Err(bad_parameter("the rate is zero or too high")),
            _ => Err(bad_parameter("there is no such unit of rates")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Class {
    group: u8,
    /// Percentage of the group's bandwidth.
    share: u8,
    rate: Rate,
}

/// Traffic classes of the port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Classes {
    classes: [Class; CLASSES],
    /// Traffic class of each priority.
    of_priority: [u8; PRIORITIES],
    /// Rate of the port.
    rate: Rate,
}

impl Default for Classes {
    /// As the driver sets it: no class shares bandwidth; priority 1 is below priority 0 (IEEE 802.1Q, table I-2).
    fn default() -> Self {
        let class = Class {
            group: LAST_GROUP,
            share: ALL,
            rate: Rate::default(),
        };
        Self {
            classes: [class; CLASSES],
            of_priority: [1, 0, 2, 3, 4, 5, 6, 7],
            rate: Rate::default(),
        }
    }
}

impl Classes {
    /// Returns the settings with the fields that `new` selects.
    fn with(mut self, new: &QetcReg) -> Result<Self> {
        let mut shared = false;
        for (class, new) in self.classes.iter_mut().zip(new.tc_configuration().chunks_exact(8)) {
            let Ok(new) = EtsTcnConfigReg::ref_from_bytes(new) else {
                break;
            };
            if new.g() {
                if new.group() > LAST_GROUP {
                    return Err(bad_parameter("there is no such group of traffic classes"));
                }
                class.group = new.group();
            }
            if new.b() {
                if new.bw_allocation() > ALL {
                    return Err(bad_parameter("the share of a traffic class is over 100%"));
                }
                class.share = new.bw_allocation();
                shared = true;
            }
            if new.r() {
                class.rate = Rate {
                    value: new.max_bw_value(),
                    unit: new.max_bw_units(),
                }
                .check()?;
            }
        }
        let port = new.global_configuration();
        if port.r() {
            self.rate = Rate {
                value: port.max_bw_value().into(),
                unit: port.max_bw_units(),
            }
            .check()?;
        }
        // The driver sets groups first and shares next, so that shares alone are checked.
        if shared && (0..LAST_GROUP).any(|group| !self.is_shared_out(group)) {
            return Err(bad_parameter("the shares of a group of traffic classes are not 100%"));
        }
        Ok(self)
    }

    /// Returns whether the shares of a group's classes, if it has any, are all of its bandwidth.
    fn is_shared_out(&self, group: u8) -> bool {
        let mut shares = self.classes.iter().filter(|class| class.group == group).peekable();
        shares.peek().is_none() || shares.map(|class| u32::from(class.share)).sum::<u32>() == u32::from(ALL)
    }

    fn register(&self) -> QetcReg {
        let mut reply = QetcReg::default();
        reply.set_port_number(PORT);
        for (to, class) in reply.tc_configuration_mut().chunks_exact_mut(8).zip(&self.classes) {
            let Ok(to) = EtsTcnConfigReg::mut_from_bytes(to) else {
                break;
            };
            to.set_group(class.group);
            to.set_bw_allocation(class.share);
            to.set_max_bw_units(class.rate.unit);
            to.set_max_bw_value(class.rate.value);
        }
        let port = reply.global_configuration_mut();
        port.set_max_bw_units(self.rate.unit);
        port.set_max_bw_value(self.rate.value as u8);
        reply
    }
}

/// Refuses a port that the function does not have. The driver leaves most of these port numbers zero
/// (`mlx5_set_port_prio_tc`, core/port.c).
fn check_port(number: u8) -> Result<()> {
    match number {
        0 => Ok(()),
        _ => super::check_port(number),
    }
}

pub(super) fn qtct(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: QtctReg = register(data);
    check_port(requested.port_number())?;
    let classes = &mut firmware.registers.lock().classes;
    // Three bits each.
    let class = &mut classes.of_priority[usize::from(requested.prio())];
    if write {
        *class = requested.tclass();
    }
    let mut reply = QtctReg::default();
    reply.set_port_number(PORT);
    reply.set_prio(requested.prio());
    reply.set_tclass(*class);
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn qetcr(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: QetcReg = register(data);
    check_port(requested.port_number())?;
    let classes = &mut firmware.registers.lock().classes;
    if write {
        *classes = classes.with(&requested)?;
    }
    Ok(classes.register().as_bytes().to_vec())
}
