//! Commands on capabilities.

use std::collections::BTreeMap;

use mlx5_prm::capability::*;
use mlx5_prm::capability_group::*;
use mlx5_prm::layout::{self, Layout};
use mlx5_prm::opcode::Opcode;
use thiserror::Error;
use zerocopy::FromBytes;

pub use super::capability_table::Capability;
use super::capability_table::{Group, TABLE};
use super::command::{Commands, Input, Reply, Result, bad_parameter};
use super::{Firmware, syndrome};
use crate::hca::limits::Limits;

pub(super) const COMMANDS: Commands = &[(Opcode::QUERY_HCA_CAP, query), (Opcode::SET_HCA_CAP, set)];

/// Bytes of the structure of a group.
const GROUP_SIZE: usize = 0x1000;
/// Offset in bits of that structure in the output of QUERY_HCA_CAP.
const CAPABILITY: usize = 0x80;

/// The name of a capability that does not exist.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("there is no capability {0} to report as 0")]
pub struct UnknownCapability(pub String);

type GroupBytes = Box<[u8; GROUP_SIZE]>;

/// Capabilities of a function: the maximum, and the current values set by the driver.
#[derive(Debug, Clone)]
pub struct Capabilities {
    max: BTreeMap<Group, GroupBytes>,
    current: BTreeMap<Group, GroupBytes>,
}

impl Capabilities {
    /// Fails if one of the names is not that of a capability.
    pub fn check_names(names: &[String]) -> std::result::Result<(), UnknownCapability> {
        let is_known = |name: &&String| TABLE.iter().any(|entry| entry.field == name.as_str());
        match names.iter().find(|name| !is_known(name)) {
            Some(unknown) => Err(UnknownCapability(unknown.clone())),
            None => Ok(()),
        }
    }

    /// Returns the device's capabilities for the function `vhca_id` within `limits`, with or without BlueFlame,
    /// and with the fields in `zeroed` cleared.
    pub fn new(
        vhca_id: u16,
        blue_flame: bool,
        limits: Limits,
        zeroed: &[String],
    ) -> std::result::Result<Self, UnknownCapability> {
        let mut max: BTreeMap<Group, GroupBytes> = Group::ALL
            .into_iter()
            .map(|group| (group, Box::new([0; GROUP_SIZE])))
            .collect();
        Self::check_names(zeroed)?;
        for entry in TABLE
            .iter()
            .filter(|entry| !zeroed.iter().any(|name| name == entry.field))
        {
            if let (Some(field), Some(bytes)) = (entry.group.field(entry.field), max.get_mut(&entry.group)) {
                layout::set(&mut bytes[..], field.offset, field.width, entry.value);
            }
        }
        if let Some(bytes) = max.get_mut(&Group::General)
            && let Ok((general, _)) = CmdHcaCap::mut_from_prefix(&mut bytes[..])
        {
            general.set_vhca_id(vhca_id);
            general.set_bf(blue_flame && !zeroed.iter().any(|name| name == "bf"));
            if general.log_max_mkey() != 0 {
                general.set_log_max_mkey(limits.log_max_mkey);
            }
        }
        Ok(Self {
            current: max.clone(),
            max,
        })
    }

    /// Every capability with its reason.
    pub fn table() -> &'static [Capability] {
        TABLE
    }

    /// Resets the current values to the maximum.
    pub(super) fn reset(&mut self) {
        self.current = self.max.clone();
    }
}

/// Splits `op_mod`: bits 15:1 are the group, bit 0 selects the current values (1) or the maximum (0).
fn group(op_mod: u16) -> (u16, bool) {
    (op_mod >> 1, op_mod & 1 != 0)
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let (number, current) = group(input.op_mod());
    let capabilities = firmware.capabilities.lock();
    let values = if current {
        &capabilities.current
    } else {
        &capabilities.max
    };
    let group = Group::new(number)
        .ok_or(bad_parameter("there is no such capability group").with_syndrome(syndrome::UNKNOWN_CAPABILITIES))?;
    let mut output = QueryHcaCapOut::default();
    if let Some(bytes) = values.get(&group) {
        *output.capability_mut() = **bytes;
    }
    Ok(Reply {
        union: Some((CAPABILITY, group.layout())),
        ..Reply::new(output)?
    })
}

fn set(firmware: &Firmware, input: Input<'_>) -> Result {
    let (number, _) = group(input.op_mod());
    let input = input.fields::<SetHcaCapIn>()?;
    let group = Group::new(number)
        .ok_or(bad_parameter("there is no such capability group").with_syndrome(syndrome::UNKNOWN_CAPABILITIES))?;
    let current = &mut firmware.capabilities.lock().current;
    let Some(bytes) = current.get_mut(&group) else {
        return Reply::ok::<SetHcaCapOut>();
    };
    match group {
        // The driver writes back the whole structure (`handle_hca_cap`, core/main.c).
        Group::General => **bytes = *input.capability(),
        // Here it writes only the fields to change (`handle_hca_cap_atomic`, `handle_hca_cap_roce`).
        Group::Atomic | Group::Roce => {
            let fields = if group == Group::Atomic {
                AtomicCaps::FIELDS
            } else {
                RoceCap::FIELDS
            };
            for field in fields.iter().filter(|field| field.width <= 64) {
                match layout::get(input.capability(), field.offset, field.width) {
                    0 => {}
                    value => layout::set(&mut bytes[..], field.offset, field.width, value),
                }
            }
        }
        _ => return Err(bad_parameter("these capabilities cannot be set")),
    }
    Reply::ok::<SetHcaCapOut>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hca::limits;

    #[test]
    fn every_capability_is_a_field_that_its_value_fits() {
        for entry in TABLE {
            let field = entry
                .group
                .field(entry.field)
                .unwrap_or_else(|| panic!("{entry:?} is no field"));
            assert!(
                field.width == 64 || entry.value >> field.width == 0,
                "{entry:?} does not fit"
            );
            assert!(!entry.reason.is_empty());
        }
        let mut names: Vec<_> = TABLE.iter().map(|entry| entry.field).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len(), "each name occurs once");
    }

    #[test]
    fn one_can_be_taken_away() {
        let all = Capabilities::new(7, false, Limits::default(), &[]).unwrap();
        let fewer = Capabilities::new(7, false, Limits::default(), &["roce".to_owned()]).unwrap();
        let general = |caps: &Capabilities| CmdHcaCap::read_from_prefix(&caps.max[&Group::General][..]).unwrap().0;
        assert!(general(&all).roce() && !general(&fewer).roce());
        assert_eq!(general(&all).vhca_id(), 7);
        assert_eq!(u64::from(general(&all).log_max_mkey()), limits::LOG_MAX_MKEY);
        assert_eq!(
            Capabilities::new(0, false, Limits::default(), &["warp".to_owned()]).unwrap_err(),
            UnknownCapability("warp".to_owned())
        );
    }
}
