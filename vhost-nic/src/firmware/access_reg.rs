//! ACCESS_REG: registers of the port, translated to [`hca::port`](crate::hca::port) and back.

use std::sync::atomic::Ordering;

use mlx5_prm::access_reg::*;
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use zerocopy::{FromBytes, IntoBytes};

use super::command::{Commands, Input, Reply, Result, bad_parameter};
use super::{Firmware, syndrome};
use crate::frame::mac::CastType;
use crate::hca::Hca;
use crate::hca::port::{LINK_MODES, MAX_PMTU};
use crate::hca::port_counters::Direction;

pub(super) const COMMANDS: Commands = &[(Opcode::ACCESS_REG, access)];

/// A register that ACCESS_REG reads and writes.
pub(super) struct Register {
    /// `MLX5_REG_*` (driver.h).
    pub(super) id: u16,
    #[cfg_attr(not(test), expect(dead_code, reason = "for docs/supported.md"))]
    pub(super) name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for docs/supported.md"))]
    pub(super) read: &'static str,
    /// Effect of a write.
    #[cfg_attr(not(test), expect(dead_code, reason = "for docs/supported.md"))]
    pub(super) write: &'static str,
    access: fn(&Firmware, &[u8], bool) -> Result<Vec<u8>>,
}

macro_rules! registers {
    ($($name:ident = $id:literal, $read:literal, $write:literal, $access:expr;)*) => {
        pub(super) const REGISTERS: &[Register] = &[$(
            Register { id: $id, name: stringify!($name), read: $read, write: $write, access: $access },
        )*];
    };
}

registers! {
    PMTU = 0x5003, "port MTU", "sets the port MTU", pmtu;
    PTYS = 0x5004, "link modes of port, guest, other end and link", "sets the guest's link modes", ptys;
    PAOS = 0x5006, "administrative and operational status", "sets the administrative status", paos;
    PFCC = 0x5007, "flow control as written", "stored; no effect",
        |firmware, data, write| Ok(pfcc(firmware, data, write));
    PPCNT = 0x5008, "counters of IEEE 802.3, RFC 2863 and RFC 2819; other groups read as 0", "no effect",
        |firmware, data, _| ppcnt(&firmware.hca, data);
    PCMR = 0x5041, "0: no port checks", "no effect", |_, data, _| Ok(pcmr(data));
    NODE_DESC = 0x6001, "node description as written", "stored; no effect",
        |firmware, data, write| Ok(stored(&mut firmware.registers.lock().node_description, data, write));
    HOST_ENDIANNESS = 0x7004, "host endianness as written", "stored; no effect",
        |firmware, data, write| Ok(stored(&mut firmware.registers.lock().host_endianness, data, write));
    DTOR = 0xc00e, "0: timeouts as the driver has them", "no effect", |_, _, _| Ok(vec![0; DTOR_SIZE]);
}

/// Variants of ACCESS_REG.
const WRITE: u16 = 0;
const READ: u16 = 1;
/// Number of the only port.
const PORT: u8 = 1;
/// In PTYS: Ethernet.
const PROTO_ETHERNET: u8 = 1 << 2;
/// In PAOS (`enum mlx5_port_status`).
const PORT_UP: u8 = 1;
const PORT_DOWN: u8 = 2;
/// Bytes of DTOR (`struct mlx5_ifc_dtor_reg_bits`, mlx5_ifc.h). A driver reads it if the initialization segment names
/// timeouts, which only a fault makes it do (`mlx5_tout_query_dtor`, core/lib/tout.c).
const DTOR_SIZE: usize = 0x3c;
/// Registers that the driver writes and reads back without effect on the device.
#[derive(Debug)]
pub(super) struct Registers {
    host_endianness: [u8; 16],
    node_description: [u8; 64],
    pause: [u8; PfccReg::SIZE],
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            host_endianness: [0; 16],
            node_description: [0; 64],
            pause: [0; PfccReg::SIZE],
        }
    }
}

fn access(firmware: &Firmware, input: Input<'_>) -> Result {
    let op_mod = input.op_mod();
    let (input, data) = input.with_tail::<AccessRegisterIn>()?;
    if !matches!(op_mod, READ | WRITE) {
        return Err(bad_parameter("the operation is neither read nor write"));
    }
    let write = op_mod == WRITE;
    let register = REGISTERS
        .iter()
        .find(|register| register.id == input.register_id())
        .ok_or(bad_parameter("there is no such register").with_syndrome(syndrome::UNKNOWN_REGISTER))?;
    let reply = (register.access)(firmware, data, write)?;
    Reply::with_tail(AccessRegisterOut::default(), &reply)
}

/// Returns the register in a command; missing bytes are zero.
fn register<T: Layout + Default>(data: &[u8]) -> T {
    let mut register = T::default();
    let length = data.len().min(T::SIZE);
    register.as_mut_bytes()[..length].copy_from_slice(&data[..length]);
    register
}

/// Reads or writes a register without effect on the device.
fn stored(memory: &mut [u8], data: &[u8], write: bool) -> Vec<u8> {
    if write {
        let length = memory.len().min(data.len());
        memory[..length].copy_from_slice(&data[..length]);
    }
    memory.to_vec()
}

fn ptys(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PtysReg = register(data);
    let port = &firmware.hca.port;
    // Without a mode, only settings of the negotiation are written, which this port has none of.
    if write && requested.eth_proto_admin() != 0 && !port.set_admin_modes(requested.eth_proto_admin()) {
        return Err(bad_parameter("the port does not support that speed"));
    }
    let state = port.state();
    let mut reply = PtysReg::default();
    reply.set_local_port(PORT);
    reply.set_proto_mask(PROTO_ETHERNET);
    reply.set_an_disable_cap(true);
    reply.set_eth_proto_capability(LINK_MODES);
    reply.set_eth_proto_admin(state.admin_modes);
    reply.set_eth_proto_oper(state.oper_mode());
    reply.set_eth_proto_lp_advertise(state.partner_modes);
    Ok(reply.as_bytes().to_vec())
}

fn paos(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
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

fn pmtu(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
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
fn pcmr(_: &[u8]) -> Vec<u8> {
    let mut reply = PcmrReg::default();
    reply.set_local_port(PORT);
    reply.as_bytes().to_vec()
}

/// Pause frames are neither sent nor obeyed; the settings are stored.
fn pfcc(firmware: &Firmware, data: &[u8], write: bool) -> Vec<u8> {
    let mut reply = stored(&mut firmware.registers.lock().pause, data, write);
    if let Ok(register) = PfccReg::mut_from_bytes(&mut reply) {
        register.set_local_port(PORT);
    }
    reply
}

/// Groups of port counters (`MLX5_*_COUNTERS_GROUP`, device.h).
mod group {
    pub(super) const IEEE_802_3: u8 = 0x0;
    pub(super) const RFC_2863: u8 = 0x1;
    pub(super) const RFC_2819: u8 = 0x2;
}

fn ppcnt(hca: &Hca, data: &[u8]) -> Result<Vec<u8>> {
    let requested: PpcntReg = register(data);
    if requested.local_port() != PORT {
        return Err(bad_parameter("the function has no such port").with_syndrome(syndrome::COUNTERS_PORT));
    }
    let mut reply = PpcntReg::default();
    reply.set_local_port(PORT);
    reply.set_grp(requested.grp());
    reply.set_prio_tc(requested.prio_tc());
    let counters = &hca.port_counters;
    let (received, sent) = (&counters.received, &counters.sent);
    let packets = |direction: &Direction, cast: CastType| direction.of(cast).get().0;
    macro_rules! counts {
        ($to:ident: $($field:ident = $value:expr),* $(,)?) => {
            pastey::paste! { $(
                $to.[<set_ $field _high>](($value >> 32) as u32);
                $to.[<set_ $field _low>]($value as u32);
            )* }
        };
    }
    let set = &mut reply.counter_set_mut()[..];
    let discards: u64 = [&counters.out_of_buffer, &counters.not_ready, &counters.unmatched]
        .map(|counter| counter.load(Ordering::Relaxed))
        .into_iter()
        .sum();
    match requested.grp() {
        group::IEEE_802_3 => {
            let Ok(to) = Eth8023CntrsGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                a_frames_transmitted_ok = sent.total().0, a_frames_received_ok = received.total().0,
                a_octets_transmitted_ok = sent.total().1, a_octets_received_ok = received.total().1,
                a_multicast_frames_xmitted_ok = packets(sent, CastType::Multicast),
                a_broadcast_frames_xmitted_ok = packets(sent, CastType::Broadcast),
                a_multicast_frames_received_ok = packets(received, CastType::Multicast),
                a_broadcast_frames_received_ok = packets(received, CastType::Broadcast),
            );
        }
        group::RFC_2863 => {
            let Ok(to) = Eth2863CntrsGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                if_in_octets = received.total().1, if_in_ucast_pkts = packets(received, CastType::Unicast),
                if_in_discards = discards, if_out_octets = sent.total().1,
                if_out_ucast_pkts = packets(sent, CastType::Unicast),
                if_out_errors = counters.send_errors.load(Ordering::Relaxed),
                if_in_multicast_pkts = packets(received, CastType::Multicast),
                if_in_broadcast_pkts = packets(received, CastType::Broadcast),
                if_out_multicast_pkts = packets(sent, CastType::Multicast),
                if_out_broadcast_pkts = packets(sent, CastType::Broadcast),
            );
        }
        group::RFC_2819 => {
            let Ok(to) = Eth2819CntrsGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                ether_stats_octets = received.total().1, ether_stats_pkts = received.total().0,
                ether_stats_broadcast_pkts = packets(received, CastType::Broadcast),
                ether_stats_multicast_pkts = packets(received, CastType::Multicast),
                ether_stats_pkts64octets = received.size_class(0),
                ether_stats_pkts65to127octets = received.size_class(1),
                ether_stats_pkts128to255octets = received.size_class(2),
                ether_stats_pkts256to511octets = received.size_class(3),
                ether_stats_pkts512to1023octets = received.size_class(4),
                ether_stats_pkts1024to1518octets = received.size_class(5),
                ether_stats_pkts1519to2047octets = received.size_class(6),
                ether_stats_pkts2048to4095octets = received.size_class(7),
                ether_stats_pkts4096to8191octets = received.size_class(8),
                ether_stats_pkts8192to10239octets = received.size_class(9),
            );
        }
        // Other groups count priorities, congestion and the physical layer, which this device does not have.
        _ => {}
    }
    Ok(reply.as_bytes().to_vec())
}
