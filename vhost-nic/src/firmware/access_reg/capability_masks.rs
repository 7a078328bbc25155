//! PCAM, MCAM, QCAM and SBCAM: which registers and features there are.

use mlx5_prm::access_reg::PcamReg;
use mlx5_prm::buffer_reg::SbcamReg;
use mlx5_prm::management_reg::McamReg;
use mlx5_prm::qos_reg::QcamReg;
use zerocopy::IntoBytes;

use super::ets::CLASSES;
use super::port_buffer::{BUFFERS, CELL};
use super::{REGISTERS, register, shared_buffer};
use crate::firmware::command::{Result, bad_parameter};

/// Registers of a group.
const GROUP: u16 = 0x80;
/// First register of the only groups of QCAM, PCAM and SBCAM, and of the first of MCAM's four (`enum
/// mlx5_mcam_reg_groups`, device.h).
const QOS_REGISTERS: u16 = 0x4000;
const PORT_REGISTERS: u16 = 0x5000;
const BUFFER_REGISTERS: u16 = 0xb000;
const MANAGEMENT_REGISTERS: u16 = 0x9000;
const MANAGEMENT_GROUPS: u16 = 4;

/// Returns a bit for each register there is from `first` on, the last in the most significant bit.
fn mask(first: u16) -> [u8; 16] {
    let offsets = REGISTERS.iter().filter_map(|register| register.id.checked_sub(first));
    let bits = offsets
        .filter(|offset| *offset < GROUP)
        .fold(0_u128, |bits, offset| bits | 1 << offset);
    bits.to_be_bytes()
}

/// Refuses a group of features other than the first.
fn check_features(group: u8) -> Result<()> {
    match group {
        0 => Ok(()),
        _ => Err(bad_parameter("there is no such group of features")),
    }
}

/// Refuses a group of registers other than the first.
fn check_registers(group: u8) -> Result<()> {
    match group {
        0 => Ok(()),
        _ => Err(bad_parameter("there is no such group of registers")),
    }
}

pub(super) fn qcam(data: &[u8]) -> Result<Vec<u8>> {
    let requested: QcamReg = register(data);
    check_features(requested.feature_group())?;
    check_registers(requested.access_reg_group())?;
    let mut reply = QcamReg::default();
    *reply.reg_cap_mut() = mask(QOS_REGISTERS);
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn sbcam(data: &[u8]) -> Result<Vec<u8>> {
    let requested: SbcamReg = register(data);
    check_features(requested.feature_group())?;
    check_registers(requested.access_reg_group())?;
    let mut reply = SbcamReg::default();
    *reply.sb_access_reg_cap_mask_mut() = mask(BUFFER_REGISTERS);
    reply.set_cap_total_buffer_size(shared_buffer::TOTAL * u32::from(CELL));
    reply.set_cap_cell_size(CELL);
    reply.set_cap_max_pg_buffers(BUFFERS as u8);
    reply.set_cap_num_pool_supported(shared_buffer::POOLS as u8);
    reply.set_cap_max_tclass_data(CLASSES as u8);
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn pcam(data: &[u8]) -> Result<Vec<u8>> {
    let requested: PcamReg = register(data);
    check_features(requested.feature_group())?;
    check_registers(requested.access_reg_group())?;
    let mut reply = PcamReg::default();
    let features = reply.enhanced_features_mut();
    features.set_ptys_connector_type(true);
    features.set_pfcc_mask(true);
    features.set_buffer_ownership(true);
    features.set_ppcnt_statistical_group(true);
    features.set_per_lane_error_counters(true);
    let registers = reply.regs_5000_to_507f_mut().as_mut_bytes();
    registers.copy_from_slice(&mask(PORT_REGISTERS));
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn mcam(data: &[u8]) -> Result<Vec<u8>> {
    let requested: McamReg = register(data);
    check_features(requested.feature_group())?;
    let group = requested.access_reg_group();
    if u16::from(group) >= MANAGEMENT_GROUPS {
        return Err(bad_parameter("there is no such group of registers"));
    }
    let mut reply = McamReg::default();
    reply.set_access_reg_group(group);
    reply.enhanced_features_mut().set_mcia_32dwords(true);
    let registers = reply.access_regs_mut().as_mut_bytes();
    registers.copy_from_slice(&mask(MANAGEMENT_REGISTERS + u16::from(group) * GROUP));
    Ok(reply.as_bytes().to_vec())
}
