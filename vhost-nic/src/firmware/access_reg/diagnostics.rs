//! PDDR and SLTP: what the vendor's tools print about the link (mstlink).

use mlx5_prm::access_reg::{PddrReg, PddrTroubleshootingPage, SltpReg};
use mlx5_prm::tool_reg::{PddrModuleInfo, PddrOperationInfoPage};
use zerocopy::{FromBytes, IntoBytes};

use super::{LANES, PORT, check_port, module, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::port::LINK_MODES;

/// Pages of PDDR (`enum PDDR_PAGES`, mstflint's mlxlink_enums.h).
mod page {
    pub(super) const OPERATION: u8 = 0;
    pub(super) const TROUBLESHOOTING: u8 = 1;
    pub(super) const MODULE: u8 = 3;
}
/// Ethernet in `proto_active`.
const ETHERNET: u8 = 4;
/// States of the port's manager (`enum PHY_MNGR_FSM_STATE`, the same file), and of auto-negotiation
/// (`_ethANFsmState`, mlxlink_maps.cpp).
const DISABLED: u8 = 0;
const POLLING: u8 = 2;
const ACTIVE: u8 = 3;
const NEGOTIATION_ENABLED: u8 = 0;
const NEGOTIATION_COMPLETE: u8 = 6;
/// Reasons why there is no link (`monitor_opcode` in mstflint's register_access_table.adb): none, the port is closed,
/// its ends have no link mode in common, no cable is plugged in. The driver knows the last two
/// (`mlx5e_link_ext_state_opcode_map`, core/en_ethtool.c).
mod reason {
    pub(super) const NONE: u32 = 0;
    pub(super) const CLOSED: u32 = 1;
    pub(super) const NO_COMMON_MODE: u32 = 39;
    pub(super) const UNPLUGGED: u32 = 1024;
}
/// Groups of opcodes: that of the monitor.
const MONITOR: u16 = 0;
/// Version of SLTP for lanes of 28 nm (`enum PRODUCT_TECHNOLOGY`).
const LANE_VERSION: u8 = super::LANE_TECHNOLOGY;
/// Types of cables (`enum CABLE_TYPE`): passive copper; nothing plugged in.
const PASSIVE: u8 = 3;
const UNPLUGGED: u8 = 4;

pub(super) fn pddr(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the register is read-only"));
    }
    let requested: PddrReg = register(data);
    check_port(requested.local_port())?;
    let mut reply = PddrReg::default();
    reply.set_local_port(PORT);
    reply.set_page_select(requested.page_select());
    match requested.page_select() {
        page::OPERATION => *reply.page_data_mut() = operation(firmware),
        page::TROUBLESHOOTING => {
            let asked = PddrTroubleshootingPage::ref_from_bytes(requested.page_data());
            let group = asked.map_or(MONITOR, PddrTroubleshootingPage::group_opcode);
            *reply.page_data_mut() = troubleshooting(firmware, group);
        }
        page::MODULE => *reply.page_data_mut() = module_info(firmware),
        _ => return Err(bad_parameter("there is no such page")),
    }
    Ok(reply.as_bytes().to_vec())
}

/// Bytes of a page.
type Page = [u8; 248];

fn page<T: IntoBytes + zerocopy::Immutable>(content: &T) -> Page {
    let mut page = [0; 248];
    let bytes = content.as_bytes();
    page[..bytes.len()].copy_from_slice(bytes);
    page
}

fn operation(firmware: &Firmware) -> Page {
    let port = firmware.hca.port.state();
    let registers = firmware.registers.lock();
    let (state, negotiation) = match (port.admin_up, port.link_up()) {
        (false, _) => (DISABLED, NEGOTIATION_ENABLED),
        (true, false) => (POLLING, NEGOTIATION_ENABLED),
        (true, true) => (ACTIVE, NEGOTIATION_COMPLETE),
    };
    let mut operation = PddrOperationInfoPage::default();
    operation.set_proto_active(ETHERNET);
    operation.set_phy_mngr_fsm_state(state);
    operation.set_eth_an_fsm_state(negotiation);
    operation.set_phy_manager_link_enabled(port.admin_modes);
    operation.set_core_to_phy_link_enabled(port.admin_modes);
    operation.set_cable_proto_cap(if port.cable { LINK_MODES } else { 0 });
    operation.set_link_active(port.oper_mode());
    // A number here, a bit in PPLM; none without a link.
    let fec = registers.fec.active(port.speed());
    operation.set_fec_mode_active(if fec == 0 { 0 } else { fec.trailing_zeros() as u16 });
    page(&operation)
}

fn troubleshooting(firmware: &Firmware, group: u16) -> Page {
    let port = firmware.hca.port.state();
    let (opcode, message) = match port {
        _ if group != MONITOR => (reason::NONE, ""),
        _ if port.link_up() => (reason::NONE, "No issue was observed"),
        _ if !port.admin_up => (reason::CLOSED, "The port is closed by command"),
        _ if !port.cable => (reason::UNPLUGGED, "Cable is unplugged"),
        _ => (reason::NO_COMMON_MODE, "Negotiation failure"),
    };
    let mut troubleshooting = PddrTroubleshootingPage::default();
    troubleshooting.set_group_opcode(group);
    troubleshooting.set_status_opcode(opcode);
    troubleshooting.status_message_mut()[..message.len()].copy_from_slice(message.as_bytes());
    page(&troubleshooting)
}

fn module_info(firmware: &Firmware) -> Page {
    let mut info = PddrModuleInfo::default();
    if !firmware.hca.port.state().cable {
        info.set_cable_type(UNPLUGGED);
        return page(&info);
    }
    let memory = module::memory(firmware.hca.vport.read().permanent);
    info.set_cable_type(PASSIVE);
    // As in the module's memory, at the addresses of SFF-8636; the identifier of QSFP28 is 0 (`enum CABLE_IDENTIFIER`).
    info.set_cable_technology(memory[147]);
    info.set_cable_length(memory[146]);
    info.set_ethernet_compliance_code(memory[131]);
    info.set_ext_ethernet_compliance_code(memory[192]);
    info.set_cable_attenuation_5g(memory[187]);
    info.set_cable_attenuation_7g(memory[188]);
    info.set_cable_attenuation_12g(memory[189]);
    info.vendor_name_mut().copy_from_slice(&memory[148..164]);
    info.vendor_pn_mut().copy_from_slice(&memory[168..184]);
    info.vendor_rev_mut()[..2].copy_from_slice(&memory[184..186]);
    info.vendor_sn_mut().copy_from_slice(&memory[196..212]);
    page(&info)
}

pub(super) fn sltp(data: &[u8], write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the transmitters have no settings"));
    }
    let requested: SltpReg = register(data);
    check_port(requested.local_port())?;
    if requested.lane() >= LANES {
        return Err(bad_parameter("the port has no such lane"));
    }
    let mut reply = SltpReg::default();
    reply.set_local_port(PORT);
    reply.set_lane(requested.lane());
    reply.set_version(LANE_VERSION);
    Ok(reply.as_bytes().to_vec())
}
