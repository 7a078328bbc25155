//! A NIC: the device behind the BAR, with its firmware, its objects and its data path.

mod bar;
mod doorbell_check;
mod init_segment;
mod snapshot;
mod uar;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::{error, info, warn};
use parking_lot::Mutex;
use thiserror::Error;
use vhost_daemon::finding;
use vhost_daemon::trace::Tracer;
use zerocopy::IntoBytes;

pub use snapshot::{CompletionSnapshot, NicSnapshot, PortSnapshot};

use crate::engine::Engine;
use crate::engine::worker::Worker;
use crate::firmware::{Capabilities, CommandDoor, Firmware, UnknownCapability};
use crate::frame::mac::Mac;
use crate::hca::entry_door::EntryDoor;
use crate::hca::limits::Limits;
use crate::hca::memory_budget::Budget;
use crate::hca::nic_event::NicEvent;
use crate::hca::nic_finding::{self, Finding};
use crate::hca::pcie_latency::PcieLatency;
use crate::hca::tape::{Entry, Tape};
use crate::hca::{Hca, HcaParts};
use crate::net::{Burst, Cable, Frame, Port, Switch};
use crate::pci::{AdapterRegisters, Device, FunctionParts, Identity, RegisterError};
use bar::{Region, Strays};
use init_segment::{Action, Registers};
use uar::Uars;

/// Configuration of a NIC.
#[derive(Debug, Clone)]
pub struct NicConfig {
    /// Name in logs, and of the NIC's thread.
    pub name: String,
    /// Permanent MAC address.
    pub mac: Mac,
    /// Adapter that its firmware presents itself as.
    pub identity: Identity,
    /// VHCA id, unique among the NICs of a daemon.
    pub vhca_id: u16,
    /// Time limit for the rest of a WQE that is written to a doorbell register, if such WQEs are executed (`bf`).
    pub blue_flame: Option<Duration>,
    /// Time for which a drained send queue is polled before the NIC's thread sleeps.
    pub busy_poll: Duration,
    /// Time of a PCIe round trip; zero for none.
    pub pcie_latency: Duration,
    /// Whether the NIC may send from its permanent MAC address only, which is its alone then, and RoCE only from the
    /// GIDs in its RoCE address table, and takes packets of a connection only from the MAC address of the peer. Other
    /// frames may have any VLAN tag: the check of an mlx5 e-switch without VST is of the source MAC address
    /// (`esw_acl_ingress_lgcy_groups_create`, core/esw/acl/ingress_lgcy.c).
    pub spoof_check: bool,
    /// Seed of the first numbers of queue pairs and memory keys; the lowest ones without.
    pub random_numbers: Option<u64>,
    /// Whether send WQEs are compared with memory at their completion.
    pub check_wqes: bool,
    /// Names of capabilities to report as 0.
    pub zeroed_capabilities: Vec<String>,
    /// Sizes of object tables.
    pub limits: Limits,
    /// Host memory in bytes that the guest's objects may take.
    pub memory_budget: u64,
    /// Doors between the NIC and its surroundings.
    pub doors: NicDoors,
}

/// Doors of a NIC besides those of its function. Without one, what would pass it passes unchanged.
#[derive(Debug, Clone, Default)]
pub struct NicDoors {
    /// Door of commands.
    pub commands: Option<Arc<dyn CommandDoor>>,
    /// Door of completions and events.
    pub entries: Option<Arc<dyn EntryDoor>>,
    /// Cable between the NIC and the switch.
    pub cable: Option<Arc<dyn Cable>>,
    /// Tape that the NIC is recorded on or replayed from.
    pub tape: Option<Arc<dyn Tape>>,
}

/// Reason why a NIC could not be created.
#[derive(Debug, Error)]
pub enum NicError {
    /// A capability to report as 0 does not exist.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// The NIC's thread did not start.
    #[error("cannot start the thread of the NIC")]
    Thread(#[from] std::io::Error),
}

/// A NIC.
#[derive(Debug)]
pub struct Nic {
    name: String,
    hca: Arc<Hca>,
    firmware: Firmware,
    cable: Option<Arc<dyn Cable>>,
    tape: Option<Arc<dyn Tape>>,
    engine: Arc<Engine>,
    _worker: Option<Worker>,
    registers: Mutex<Registers>,
    /// A fatal error of the device, until the driver sets the interface up or the function is reset.
    failed: AtomicBool,
    uars: Uars,
    strays: Arc<Strays>,
}

impl Nic {
    /// Creates a NIC on the memory and the interrupts of a function, and starts its thread.
    pub fn new(config: &NicConfig, parts: &FunctionParts) -> Result<Arc<Self>, NicError> {
        Self::build(config, parts, true)
    }

    /// Creates a NIC without a thread: [`step`](Self::step) does what its thread would do.
    pub fn without_thread(config: &NicConfig, parts: &FunctionParts) -> Result<Arc<Self>, NicError> {
        Self::build(config, parts, false)
    }

    fn build(config: &NicConfig, parts: &FunctionParts, has_thread: bool) -> Result<Arc<Self>, NicError> {
        let limits = config.limits;
        let blue_flame = config.blue_flame.is_some();
        let capabilities = Capabilities::new(config.vhca_id, blue_flame, limits, &config.zeroed_capabilities)?;
        let tracer = Tracer::new(config.vhca_id);
        let hca_parts = HcaParts {
            dma: parts.dma.clone(),
            msix: parts.msix.clone(),
            tracer,
            door: config.doors.entries.clone(),
            pcie_latency: Arc::new(PcieLatency::new(config.pcie_latency)),
            findings: Arc::new(nic_finding::Findings::new(
                &config.name,
                tracer,
                config.doors.tape.clone(),
            )),
            check_wqes: config.check_wqes,
            tape: config.doors.tape.clone(),
            spoof_check: config.spoof_check,
            random_numbers: config.random_numbers,
            budget: Arc::new(Budget::new(config.memory_budget)),
        };
        let hca = Arc::new(Hca::new(hca_parts, config.mac, bar::UAR_PAGES, limits));
        let engine = Arc::new(Engine::new(hca.clone()));
        let busy_poll = if let Some(timeout) = config.blue_flame {
            hca.blue_flame.enable(timeout);
            Duration::ZERO
        } else {
            config.busy_poll
        };
        let start = || Worker::start(&config.name, &engine, busy_poll, config.doors.tape.clone());
        let worker = has_thread.then(start).transpose()?;
        let strays = Arc::new(Strays::new(hca.findings.clone()));
        let nic = Arc::new(Self {
            name: config.name.clone(),
            firmware: Firmware::new(
                hca.clone(),
                config.identity,
                capabilities,
                config.doors.commands.clone(),
            ),
            cable: config.doors.cable.clone(),
            tape: config.doors.tape.clone(),
            uars: Uars::new(hca.clone(), strays.clone()),
            hca,
            engine,
            _worker: worker,
            registers: Mutex::default(),
            failed: AtomicBool::new(false),
            strays,
        });
        let weak = Arc::downgrade(&nic);
        nic.engine.set_on_panic(move || {
            if let Some(nic) = weak.upgrade() {
                nic.fail();
            }
        });
        Ok(nic)
    }

    /// Connects the NIC to a switch.
    pub fn connect(self: &Arc<Self>, switch: &Arc<Switch>) {
        let port: Weak<dyn Port> = Arc::downgrade(&(self.clone() as Arc<dyn Port>));
        let port = switch.attach_by(self.cable.clone(), &self.name, port);
        if let Some(address) = self.hca.bound_address()
            && !port.bind(address)
        {
            warn!(
                "{}: another NIC has the address {address}: nothing from it is forwarded",
                self.name
            );
        }
        self.firmware.connect(port.tap().clone());
        self.engine.connect(port);
    }

    /// Services the next task that is due, if any, in place of the NIC's thread.
    pub fn step(&self) {
        self.engine.step();
    }

    fn enter(&self, entry: Entry<'_>, mut act: impl FnMut()) {
        match &self.tape {
            None => act(),
            Some(tape) => tape.enter(entry, &mut act),
        }
    }

    /// Plugs in or pulls the cable.
    pub fn set_cable(&self, plugged: bool) {
        self.enter(Entry::Cable(plugged), || self.hca.port.set_cable(plugged));
    }

    /// Sets the speed in Gb/s that the other end of the cable has, `None` for all. Returns whether the port has it.
    #[must_use]
    pub fn set_partner_speed(&self, gbps: Option<u32>) -> bool {
        let mut set = false;
        self.enter(Entry::PartnerSpeed(gbps), || {
            set = self.hca.port.set_partner_speed(gbps)
        });
        set
    }

    /// Sets the cable and the speed of its other end to what they are, each as an entry if it is not as at the start.
    pub fn restate_cable(&self) {
        let state = self.hca.port.state();
        if !state.cable {
            self.set_cable(false);
        }
        if let Some(gbps) = state.partner_speed() {
            let _ = self.set_partner_speed(Some(gbps));
        }
    }

    /// Calls `act` with the objects while nothing takes them away, on the calling thread. For actions that come from
    /// neither the guest nor the wire.
    pub fn with_objects<T>(&self, act: impl FnOnce(&Hca) -> T) -> T {
        self.engine.with_objects(act)
    }

    /// Returns the findings of the guest.
    pub fn findings(&self) -> &Arc<finding::Findings<Finding>> {
        self.hca.findings.all()
    }

    /// Returns the live objects: each kind a map from numbers to objects.
    pub fn objects(&self) -> serde_json::Value {
        // In memory first, so that a slow reader of the statistics keeps no object locked.
        serde_json::to_value(&*self.hca).unwrap_or_default()
    }

    /// Takes a snapshot of the NIC's state and counters.
    pub fn snapshot(&self) -> NicSnapshot {
        NicSnapshot::take(self, self.objects())
    }

    /// Takes a snapshot without the live objects, in a time that does not depend on their number.
    pub fn summary(&self) -> NicSnapshot {
        NicSnapshot::take(self, serde_json::Value::Null)
    }

    /// Takes a write to the initialization segment, word by word.
    fn write_init_segment(&self, offset: u64, data: &[u8]) {
        let (words, rest) = data.as_chunks::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            return self.strays.write(offset, data);
        }
        for (at, word) in (offset..).step_by(4).zip(words) {
            let action = self.registers.lock().write(at, u32::from_be_bytes(*word));
            match action {
                Action::Stored => {}
                Action::Enable => self.begin(),
                Action::Execute { queue, slots } => {
                    let arguments = || [slots, 0, 0, 0];
                    self.hca.tracer.record(NicEvent::CommandDoorbell, 0, arguments);
                    // Of the doorbells of two processors, one may have been late.
                    let enabled = || self.registers.lock().is_enabled();
                    self.firmware.run(queue, slots, enabled);
                }
                Action::Disable => {
                    info!("{}: the guest's driver disabled the interface", self.name);
                    self.stop();
                }
                Action::NoRegister => self.strays.write(at, word),
            }
        }
    }

    /// Receives the bytes of frames as one entry; of a payload by reference, bytes are all that a tape can have.
    #[cold]
    fn receive_by_turns(&self, burst: &Burst<'_>) {
        let mut frames: Vec<Cow<'_, [u8]>> = Vec::new();
        burst.each(|frame| frames.extend(frame.to_bytes().map(|bytes| Cow::Owned(bytes.into_owned()))));
        self.enter(Entry::Receive(&frames), || {
            let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::new(bytes)).collect();
            self.engine.receive(&Burst::new(&frames));
        });
    }

    /// Drops what may be half done after a panic of a task, and reports a fatal error: the driver's health check finds
    /// the interface disabled, and sets it up anew.
    fn fail(&self) {
        error!(
            "{}: fatal error of the device: it drops what the driver has set up",
            self.name
        );
        // At first: the driver sees the error even if the rest fails, and nothing that it still does is executed.
        self.failed.store(true, Ordering::Relaxed);
        *self.registers.lock() = Registers::after_fatal_error();
        self.drop_state(|| {});
    }

    /// Ends the firmware with a fatal error, as the health buffer says: it executes no commands, and keeps neither
    /// objects nor pages, which the driver takes for gone without commands (`mlx5_enter_error_state`, core/health.c).
    /// Lasts until the driver sets the interface up or the function is reset.
    pub(crate) fn fail_firmware(&self, syndrome: u8) {
        self.failed.store(true, Ordering::Relaxed);
        self.registers.lock().fail(syndrome);
        self.drop_state(|| {});
    }

    /// Begins with a driver that sets the interface up. It knows nothing of what one before it has left, as after a
    /// fatal error or a crash of its kernel.
    fn begin(&self) {
        self.failed.store(false, Ordering::Relaxed);
        if self.firmware.pages_held() > 0 || !self.hca.object_counts().is_empty() {
            info!("{}: what another driver has left is dropped", self.name);
            self.drop_state(|| {});
        }
    }

    /// Waits for work in progress, then drops everything that the guest has set up.
    fn stop(&self) {
        self.drop_state(|| {
            self.hca.report_left("a reset");
            self.firmware.report_pages_left();
        });
    }

    fn drop_state(&self, report: impl FnOnce()) {
        self.hca.port.set_initialized(false);
        self.engine.quiesce(|| {
            report();
            self.firmware.reset();
            self.hca.clear();
        });
    }
}

impl AdapterRegisters for Nic {
    fn access(&self, id: u16, write: bool, value: &[u8]) -> Result<Vec<u8>, RegisterError> {
        self.firmware.access_register(id, write, value)
    }
}

impl Device for Nic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match Region::at(offset) {
            Region::InitSegment => {
                let segment = self.registers.lock().segment(self.hca.clock.now());
                let from = offset as usize;
                match segment.as_bytes().get(from..from + data.len()) {
                    Some(bytes) => data.copy_from_slice(bytes),
                    None => self.strays.read(offset, data.len()),
                }
            }
            // UARs are write-only.
            Region::Uar { .. } => {}
            Region::Hole => self.strays.read(offset, data.len()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match Region::at(offset) {
            Region::InitSegment => self.write_init_segment(offset, data),
            // A driver that does not know of a fatal error yet makes no mistake.
            Region::Uar { .. } if self.failed.load(Ordering::Relaxed) => {}
            Region::Uar { page, offset } => self.uars.write(page, offset, data),
            Region::Hole => self.strays.write(offset, data),
        }
    }

    fn reset(&self) {
        *self.registers.lock() = Registers::after_reset();
        self.failed.store(false, Ordering::Relaxed);
        self.stop();
    }

    fn power_cycle(&self) {
        self.firmware.power_cycle();
        self.hca.power_cycle();
    }
}

impl Port for Nic {
    fn receive(&self, frame: Frame<'_>) {
        self.receive_burst(&Burst::new(&[frame]));
    }

    fn receive_burst(&self, burst: &Burst<'_>) {
        if self.tape.is_some() {
            return self.receive_by_turns(burst);
        }
        self.engine.receive(burst);
    }

    fn cable_changed(&self, plugged: bool) {
        self.set_cable(plugged);
    }
}
