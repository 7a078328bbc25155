//! Commands of the guest's driver, which ConnectX executes in firmware.

mod access_reg;
mod capabilities;
mod capability_table;
mod command;
mod command_queue;
mod counters;
mod cq;
mod domain;
mod door;
mod eq;
mod init_hca;
mod mkey;
mod qp;
mod reserved_bits;
mod rq;
mod sq;
mod srq;
mod steering;
#[cfg(test)]
mod supported;
pub mod syndrome;
mod tis_tir_rqt;
mod version;
mod vport;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use mlx5_prm::opcode::Opcode;
use parking_lot::Mutex;

pub use capabilities::{Capabilities, UnknownCapability};
pub use command_queue::{LOG_CMDQ_SIZE, LOG_CMDQ_STRIDE};
pub use door::{CommandDoor, Fate};
pub use version::{FirmwareVersion, VERSION};

use crate::hca::Hca;
use crate::hca::nic_finding::{Finding, Object};
use crate::net::PortTap;
use crate::pci::Identity;
use access_reg::{NvConfig, Registers};
use command::{Commands, Handler};
use init_hca::Pages;
use vhost_daemon::Counter;

const FAMILIES: &[(&str, Commands)] = &[
    ("Start, stop, pages", init_hca::COMMANDS),
    ("Capabilities", capabilities::COMMANDS),
    ("UAR, PD, TD, XRCD, UCTX", domain::COMMANDS),
    ("MKEY", mkey::COMMANDS),
    ("EQ", eq::COMMANDS),
    ("CQ", cq::COMMANDS),
    ("QP and multicast groups", qp::COMMANDS),
    ("RMP and XRC SRQ", srq::COMMANDS),
    ("RQ", rq::COMMANDS),
    ("SQ", sq::COMMANDS),
    ("TIS, TIR, RQT", tis_tir_rqt::COMMANDS),
    ("Flow tables and counters", steering::COMMANDS),
    ("Vport and RoCE addresses", vport::COMMANDS),
    ("Vport and queue counters", counters::COMMANDS),
    ("Registers", access_reg::COMMANDS),
];

/// The firmware of one function.
#[derive(Debug)]
pub struct Firmware {
    hca: Arc<Hca>,
    identity: Identity,
    handlers: HashMap<u16, Handler>,
    capabilities: Mutex<Capabilities>,
    pages: Mutex<Pages>,
    registers: Mutex<Registers>,
    nv_config: Mutex<NvConfig>,
    /// Commands refused since power-on, and those of them for lack of resources (QUERY_VNIC_ENV).
    refused: AtomicU32,
    over_quota: AtomicU32,
    unknown: Mutex<BTreeSet<u16>>,
    /// Opcodes with a finding about reserved bits.
    with_reserved_bits: Mutex<BTreeSet<u16>>,
    door: Option<Arc<dyn CommandDoor>>,
    tap: OnceLock<PortTap>,
    /// Held while a command executes or a late one is answered: one after the other.
    running: Arc<Mutex<()>>,
    /// Commands fetched.
    commands: Counter,
    /// Counts resets: a command from before the last is not answered any more.
    resets: Arc<AtomicU64>,
}

impl Firmware {
    /// Creates the firmware of an adapter with these capabilities. Commands pass `door`, if there is one.
    pub fn new(
        hca: Arc<Hca>,
        identity: Identity,
        capabilities: Capabilities,
        door: Option<Arc<dyn CommandDoor>>,
    ) -> Self {
        let handlers = FAMILIES
            .iter()
            .flat_map(|(_, commands)| *commands)
            .map(|(opcode, handler)| (opcode.0, *handler))
            .collect();
        Self {
            pages: Mutex::new(Pages::new(&hca.budget)),
            hca,
            identity,
            handlers,
            capabilities: Mutex::new(capabilities),
            registers: Mutex::default(),
            nv_config: Mutex::default(),
            refused: AtomicU32::default(),
            over_quota: AtomicU32::default(),
            unknown: Mutex::default(),
            commands: Counter::default(),
            with_reserved_bits: Mutex::default(),
            door,
            tap: OnceLock::new(),
            running: Arc::default(),
            resets: Arc::default(),
        }
    }

    /// Shows the commands to the taps of a switch. Further calls are ignored.
    pub fn connect(&self, tap: PortTap) {
        let _ = self.tap.set(tap);
    }

    /// Executes the commands in the slots of `mask` of the queue at guest address `queue`, unless the interface was
    /// disabled while others were executed.
    pub fn run(&self, queue: u64, mask: u32, enabled: impl FnOnce() -> bool) {
        let _one_at_a_time = self.running.lock();
        if enabled() {
            command_queue::run(self, queue, mask);
        }
    }

    /// Returns the firmware and the port to their state after reset. Objects stay: they are the HCA's.
    pub fn reset(&self) {
        let _one_at_a_time = self.running.lock();
        self.forget();
    }

    /// Reports every kind of mistake again, and returns the configuration in flash to that of the factory: another
    /// driver comes.
    pub fn power_cycle(&self) {
        *self.nv_config.lock() = NvConfig::default();
        self.refused.store(0, Ordering::Relaxed);
        self.over_quota.store(0, Ordering::Relaxed);
        self.unknown.lock().clear();
        self.with_reserved_bits.lock().clear();
    }

    fn forget(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.hca.port.reset();
        self.hca.priorities.reset();
        self.capabilities.lock().reset();
        self.pages.lock().clear();
        *self.registers.lock() = Registers::default();
        self.nv_config.lock().reset();
    }

    /// Number of commands fetched.
    pub fn commands(&self) -> u64 {
        self.commands.get()
    }

    /// Number of pages of guest memory that the firmware holds.
    pub fn pages_held(&self) -> usize {
        self.pages.lock().held()
    }

    fn tap(&self) -> Option<&PortTap> {
        self.tap.get().filter(|tap| tap.is_on())
    }

    fn handler(&self, opcode: Opcode) -> Option<Handler> {
        self.handlers.get(&opcode.0).copied()
    }

    /// Reports the pages that the driver has not reclaimed. The evidence is the addresses of the first.
    pub fn report_pages_left(&self) {
        let pages = self.pages.lock();
        if pages.held() > 0 {
            let evidence: Vec<u8> = pages.addresses().take(8).flat_map(u64::to_be_bytes).collect();
            let text = format_args!("{} pages left with the device", pages.held());
            let object = Object::new("pages", pages.held() as u64);
            self.hca.findings.report(Finding::PageLeft, object, &evidence, text);
        }
    }

    fn first_of_unknown(&self, opcode: Opcode) -> bool {
        self.unknown.lock().insert(opcode.0)
    }
}
