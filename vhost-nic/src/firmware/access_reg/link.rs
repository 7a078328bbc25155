//! Link, administrative status and MTU of the port.

use mlx5_prm::access_reg::{PaosReg, PcmrReg, PmtuReg, PtysReg};
use zerocopy::IntoBytes;

use super::{PORT, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::port::{LINK_MODES, MAX_PMTU};

/// In PTYS: Ethernet.
const PROTO_ETHERNET: u8 = 1 << 2;
/// `an_status` of PTYS (`MLX5_AN_COMPLETE`, port.h).
const AUTONEGOTIATION_COMPLETE: u8 = 1;
/// `connector_type` of PTYS with a copper cable (`MLX5E_PORT_DA`, port.h). Without a cable it is 0, unknown.
const DIRECT_ATTACH: u8 = 7;
/// In PAOS (`enum mlx5_port_status`).
const PORT_UP: u8 = 1;
const PORT_DOWN: u8 = 2;

pub(super) fn ptys(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PtysReg = register(data);
    let port = &firmware.hca.port;
    // Without a mode, only settings of the negotiation are written, which this port has none of.
    if write && requested.eth_proto_admin() != 0 && !port.set_admin_modes(requested.eth_proto_admin()) {
        return Err(bad_parameter("the port does not support that speed"));
    }
    let mut registers = firmware.registers.lock();
    if write {
        registers.autonegotiation_off = requested.an_disable_admin();
    }
    let state = port.state();
    let mut reply = PtysReg::default();
    reply.set_local_port(PORT);
    reply.set_proto_mask(PROTO_ETHERNET);
    reply.set_an_disable_cap(true);
    reply.set_an_disable_admin(registers.autonegotiation_off);
    if state.link_up() && !registers.autonegotiation_off {
        reply.set_an_status(AUTONEGOTIATION_COMPLETE);
    }
    // In units of 100 Mb/s.
    reply.set_data_rate_oper(state.speed() as u16 * 10);
    if state.cable {
        reply.set_connector_type(DIRECT_ATTACH);
    }
    reply.set_eth_proto_capability(LINK_MODES);
    reply.set_eth_proto_admin(state.admin_modes);
    reply.set_eth_proto_oper(state.oper_mode());
    reply.set_eth_proto_lp_advertise(state.partner_modes);
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn paos(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PaosReg = register(data);
    if write {
        let up = match requested.admin_status() {
            PORT_UP => true,
            PORT_DOWN => false,
            _ => return Err(bad_parameter("the administrative state is neither up nor down")),
        };
        firmware.hca.port.set_admin_up(up);
    }
    let port = firmware.hca.port.state();
    let mut reply = PaosReg::default();
    reply.set_local_port(PORT);
    reply.set_admin_status(if port.admin_up { PORT_UP } else { PORT_DOWN });
    reply.set_oper_status(if port.link_up() { PORT_UP } else { PORT_DOWN });
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn pmtu(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PmtuReg = register(data);
    let port = &firmware.hca.port;
    if write && !port.set_pmtu(requested.admin_mtu()) {
        return Err(bad_parameter("the port does not support that MTU"));
    }
    let pmtu = port.state().pmtu;
    let mut reply = PmtuReg::default();
    reply.set_local_port(PORT);
    reply.set_max_mtu(MAX_PMTU);
    reply.set_admin_mtu(pmtu);
    reply.set_oper_mtu(pmtu);
    Ok(reply.as_bytes().to_vec())
}

/// The device checks no frame check sequences, so there is nothing to switch.
pub(super) fn pcmr() -> Vec<u8> {
    let mut reply = PcmrReg::default();
    reply.set_local_port(PORT);
    reply.as_bytes().to_vec()
}
