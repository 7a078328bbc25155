//! What ConnectX does in firmware: the commands of the guest's driver.

mod access_reg;
mod capabilities;
mod capability_table;
mod command;
mod command_queue;
mod counters;
mod cq;
mod domain;
mod eq;
mod init_hca;
mod mkey;
mod qp;
mod rq;
mod sq;
mod srq;
mod steering;
#[cfg(test)]
mod supported;
pub mod syndrome;
mod tis_tir_rqt;
mod vport;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::EventType;
use parking_lot::Mutex;

pub use capabilities::{Capabilities, UnknownCapability};
pub use command_queue::{LOG_CMDQ_SIZE, LOG_CMDQ_STRIDE};

use crate::hca::Hca;
use access_reg::Registers;
use command::{Commands, Handler};
use init_hca::Pages;

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
    handlers: HashMap<u16, Handler>,
    capabilities: Mutex<Capabilities>,
    pages: Mutex<Pages>,
    registers: Mutex<Registers>,
    /// Whether the guest's driver has started the HCA.
    initialized: AtomicBool,
    unknown: Mutex<BTreeSet<u16>>,
    /// Commands are carried out one after the other.
    running: Mutex<()>,
}

/// The port at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortState {
    /// Its MTU, in bytes without the Ethernet header.
    pub mtu: u16,
    /// Whether the guest wants it up, and the cable is in.
    pub link_up: bool,
}

impl Firmware {
    /// Firmware for these objects, with these capabilities.
    pub fn new(hca: Arc<Hca>, capabilities: Capabilities) -> Self {
        let handlers = FAMILIES
            .iter()
            .flat_map(|(_, commands)| *commands)
            .map(|(opcode, handler)| (opcode.0, *handler))
            .collect();
        Self {
            hca,
            handlers,
            capabilities: Mutex::new(capabilities),
            pages: Mutex::default(),
            registers: Mutex::default(),
            initialized: AtomicBool::new(false),
            unknown: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// Carries out the commands in the slots of `mask` of the queue at guest address `queue`.
    pub fn run(&self, queue: u64, mask: u32) {
        let _one_at_a_time = self.running.lock();
        command_queue::run(self, queue, mask);
    }

    /// Forgets everything the guest's driver has set up, but not the objects, which are the HCA's.
    pub fn reset(&self) {
        let _one_at_a_time = self.running.lock();
        self.forget();
    }

    /// Lets no more traffic in.
    pub fn halt(&self) {
        self.initialized.store(false, Ordering::Release);
    }

    fn forget(&self) {
        self.initialized.store(false, Ordering::Release);
        self.capabilities.lock().reset();
        *self.pages.lock() = Pages::default();
        *self.registers.lock() = Registers::default();
    }

    /// Whether the guest's driver has started the HCA: only then is there traffic.
    pub fn initialized(&self) -> bool {
        self.initialized.load(Ordering::Acquire)
    }

    /// Pages of the guest's memory that the firmware holds.
    pub fn pages_held(&self) -> usize {
        self.pages.lock().held()
    }

    /// What decides over frames: the port's MTU, and whether it is up.
    pub fn port(&self) -> PortState {
        let registers = self.registers.lock();
        PortState {
            mtu: registers.mtu(),
            link_up: registers.link_up(),
        }
    }

    /// Whether the port is up: the guest wants it up, and the cable is in.
    pub fn link_up(&self) -> bool {
        self.registers.lock().link_up()
    }

    /// Plugs the cable in or out, and tells the guest.
    pub fn set_cable(&self, plugged: bool) {
        let changed = self.registers.lock().set_cable(plugged);
        if changed {
            self.announce_link();
        }
    }

    fn announce_link(&self) {
        // `MLX5_PORT_CHANGE_SUBTYPE_*`; the port number is in bits 7:4 of data[8] (core/events.c).
        let sub_type = if self.link_up() { 4 } else { 1 };
        let mut data = [0; 28];
        data[8] = 1 << 4;
        self.hca.eqs.announce(EventType::PortChange, sub_type, &data);
    }

    fn handler(&self, opcode: Opcode) -> Option<Handler> {
        self.handlers.get(&opcode.0).copied()
    }

    fn first_of_unknown(&self, opcode: Opcode) -> bool {
        self.unknown.lock().insert(opcode.0)
    }
}
