//! ACCESS_REG: registers of the port and of management.

mod capability_masks;
mod components;
mod counters;
mod dcbx;
mod diagnostics;
mod ets;
mod fec;
mod flow_control;
mod general_information;
mod identification;
mod link;
mod module;
mod nv_config;
mod port_buffer;
mod shared_buffer;
mod trust;

use mlx5_prm::access_reg::{AccessRegisterIn, AccessRegisterOut};
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;

use super::command::{Commands, Input, Reply, Result, bad_parameter};
use super::{Firmware, syndrome};
use crate::hca::nic_finding::{Finding, Object};
use crate::pci::RegisterError;
use dcbx::Dcbx;
use ets::Classes;
use fec::Fec;
use flow_control::FlowControl;
use identification::Beacon;
pub(super) use nv_config::NvConfig;
use port_buffer::PortBuffer;
use shared_buffer::SharedBuffer;

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
    QPTS = 0x4002, "trust state: PCP or DSCP", "chooses the priority that counts", trust::qpts;
    QETCR = 0x4005, "groups, shares and rates of traffic classes as written", "stored; no effect", ets::qetcr;
    QTCT = 0x400a, "traffic class of a priority as written", "stored; no effect", ets::qtct;
    QPDPM = 0x4013, "priority of each DSCP", "sets it", trust::qpdpm;
    QCAM = 0x4019, "registers of quality of service", "no effect", |_, data, _| capability_masks::qcam(data);
    DCBX_PARAM = 0x4020, "version of DCBX as written", "stored; no effect", dcbx::dcbx_param;
    PMLP = 0x5002, "four lanes of module 0", "no effect", |_, data, _| module::pmlp(data);
    PMTU = 0x5003, "port MTU", "sets the port MTU", link::pmtu;
    PTYS = 0x5004, "link modes of port, guest, other end and link; the connector", "sets the guest's link modes",
        link::ptys;
    PAOS = 0x5006, "administrative and operational status", "sets the administrative status", link::paos;
    PFCC = 0x5007, "flow control as written; owner of port buffers",
        "stored under its masks; buffers follow", flow_control::pfcc;
    PPCNT = 0x5008, "counters of IEEE 802.3, RFC 2863, RFC 2819, priorities, physical layer; others are 0",
        "no effect", |firmware, data, _| counters::ppcnt(&firmware.hca, data);
    PPTB = 0x500b, "port buffer of each priority", "stored; no effect on frames", port_buffer::pptb;
    PBMC = 0x500c, "sizes and thresholds of port buffers", "stored; no effect on frames", port_buffer::pbmc;
    PMAOS = 0x5012, "status of the module", "refused", module::pmaos;
    PPLM = 0x5023, "FEC modes of each speed, and the active one", "sets the FEC mode of each speed", fec::pplm;
    SLTP = 0x5027, "generation of the lanes; no transmitter settings", "refused",
        |_, data, write| diagnostics::sltp(data, write);
    PDDR = 0x5031, "state of the link, reason for having none, module", "refused", diagnostics::pddr;
    PCMR = 0x5041, "0: no port checks", "no effect", |_, _, _| Ok(link::pcmr());
    PCAM = 0x507f, "port registers and features", "no effect", |_, data, _| capability_masks::pcam(data);
    NODE_DESC = 0x6001, "node description as written", "stored; no effect",
        |firmware, data, write| Ok(stored(&mut firmware.registers.lock().node_description, data, write));
    HOST_ENDIANNESS = 0x7004, "host endianness as written", "stored; no effect",
        |firmware, data, write| Ok(stored(&mut firmware.registers.lock().host_endianness, data, write));
    MCIA = 0x9014, "memory of the module: a copper cable", "no effect",
        |firmware, data, _| module::mcia(firmware, data);
    MGIR = 0x9020, "adapter, address, version of the firmware", "refused",
        |firmware, _, write| general_information::mgir(firmware, write);
    MNVDA = 0x9024, "configuration items of offloads and PCI functions", "sets the type of CQE compression",
        nv_config::mnvda;
    MFRL = 0x9028, "a reset of the machine activates firmware", "refused", |_, _, write| components::mfrl(write);
    MLCR = 0x902b, "time that the beacon LED is on", "switches the beacon LED", identification::mlcr;
    MNVQC = 0x9030, "whether a configuration item can be read and written", "refused", nv_config::mnvqc;
    MNVGC = 0x9034, "current and default values can be read", "refused", |_, _, write| nv_config::mnvgc(write);
    MCQS = 0x9060, "the boot image, the only component", "refused", components::mcqs;
    MCQI = 0x9061, "capabilities, version and activation of the boot image", "refused", components::mcqi;
    MCC = 0x9062, "idle: no update of a component", "refused", components::mcc;
    MCDA = 0x9063, "refused: the image cannot be read", "refused", |_, _, _| components::mcda();
    MQIS = 0x9064, "name and description of the adapter", "refused", general_information::mqis;
    MCAM = 0x907f, "management registers and features", "no effect", |_, data, _| capability_masks::mcam(data);
    SBPR = 0xb001, "size of a shared buffer pool", "stored; no effect on frames", shared_buffer::sbpr;
    SBCM = 0xb002, "share of a port buffer in a pool", "stored; no effect on frames", shared_buffer::sbcm;
    SBCAM = 0xb01f, "registers and sizes of shared buffers", "no effect", |_, data, _| capability_masks::sbcam(data);
    DTOR = 0xc00e, "0: timeouts as the driver has them", "no effect", |_, _, _| Ok(vec![0; DTOR_SIZE]);
}

/// Variants of ACCESS_REG.
const WRITE: u16 = 0;
const READ: u16 = 1;
/// Number of the only port.
const PORT: u8 = 1;
/// Number of lanes of the port, and their generation: 28 nm (`enum PRODUCT_TECHNOLOGY`, mstflint's mlxlink_enums.h).
const LANES: u8 = 4;
const LANE_TECHNOLOGY: u8 = 1;
/// Bytes of DTOR (`struct mlx5_ifc_dtor_reg_bits`, mlx5_ifc.h). A driver reads it if the initialization segment names
/// timeouts, which only a fault makes it do (`mlx5_tout_query_dtor`, core/lib/tout.c).
const DTOR_SIZE: usize = 0x3c;

/// Registers that are written and read back until the next reset.
#[derive(Debug)]
pub(super) struct Registers {
    host_endianness: [u8; 16],
    node_description: [u8; 64],
    flow_control: FlowControl,
    classes: Classes,
    dcbx: Dcbx,
    port_buffer: PortBuffer,
    shared_buffer: SharedBuffer,
    fec: Fec,
    autonegotiation_off: bool,
    beacon: Beacon,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            host_endianness: [0; 16],
            node_description: [0; 64],
            flow_control: FlowControl::default(),
            classes: Classes::default(),
            dcbx: Dcbx::default(),
            port_buffer: PortBuffer::default(),
            shared_buffer: SharedBuffer::default(),
            fec: Fec::default(),
            autonegotiation_off: false,
            beacon: Beacon::default(),
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

impl Firmware {
    /// Reads or writes a register for a tool that is no driver, and returns its new value.
    pub fn access_register(&self, id: u16, write: bool, value: &[u8]) -> std::result::Result<Vec<u8>, RegisterError> {
        let _one_at_a_time = self.running.lock();
        let register = REGISTERS.iter().find(|register| register.id == id);
        let answer = register
            .ok_or((RegisterError::NotSupported, "there is no such register"))
            .and_then(|register| {
                (register.access)(self, value, write).map_err(|refusal| (RegisterError::BadParameter, refusal.reason))
            });
        answer.map_err(|(error, reason)| {
            let text = format_args!("an access to register {id:#x} is refused: {reason}");
            let object = Object::new("register", id.into());
            self.hca.findings.report(Finding::CommandRefused, object, value, text);
            error
        })
    }
}

/// Refuses a port that the function does not have.
fn check_port(number: u8) -> Result<()> {
    match number {
        PORT => Ok(()),
        _ => Err(bad_parameter("the function has no such port")),
    }
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
