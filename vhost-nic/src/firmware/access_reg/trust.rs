//! QPTS and QPDPM: what gives a frame its priority: the PCP of its VLAN tag, or its DSCP by a table. The port counts
//! frames by priority, and does nothing else with it.

use mlx5_prm::qos_reg::{QpdpmReg, QptsReg};
use zerocopy::IntoBytes;

use super::{PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::priority::{DSCPS, PRIORITIES};

/// Values of `trust_state` (`enum mlx5_qpts_trust_state`, driver.h).
const PCP: u8 = 1;
const DSCP: u8 = 2;
/// Fields of an entry of QPDPM: enable, priority.
const ENABLE: u16 = 1 << 15;
const PRIORITY: u16 = 0xf;

/// Returns the priorities of the DSCPs with those of enabled entries in their place.
fn merged(mut priorities: [u8; DSCPS], new: &QpdpmReg) -> Result<[u8; DSCPS]> {
    for (priority, entry) in priorities.iter_mut().zip(new.dscp().chunks_exact(2)) {
        let entry = u16::from(entry[0]) << 8 | u16::from(entry[1]);
        if entry & ENABLE == 0 {
            continue;
        }
        *priority = (entry & PRIORITY) as u8;
        if usize::from(*priority) >= PRIORITIES {
            return Err(bad_parameter("there is no such priority"));
        }
    }
    Ok(priorities)
}

pub(super) fn qpts(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: QptsReg = register(data);
    check_port(requested.local_port())?;
    let priorities = &firmware.hca.priorities;
    match requested.trust_state() {
        _ if !write => {}
        PCP => priorities.set_by_dscp(false),
        DSCP => priorities.set_by_dscp(true),
        _ => return Err(bad_parameter("the trust state is neither PCP nor DSCP")),
    }
    let mut reply = QptsReg::default();
    reply.set_local_port(PORT);
    reply.set_trust_state(if priorities.by_dscp() { DSCP } else { PCP });
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn qpdpm(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: QpdpmReg = register(data);
    check_port(requested.local_port())?;
    let priorities = &firmware.hca.priorities;
    if write {
        priorities.map(merged(priorities.of_dscp(), &requested)?);
    }
    let mut reply = QpdpmReg::default();
    reply.set_local_port(PORT);
    for (entry, priority) in reply.dscp_mut().chunks_exact_mut(2).zip(priorities.of_dscp()) {
        entry[1] = priority;
    }
    Ok(reply.as_bytes().to_vec())
}
