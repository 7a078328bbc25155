//! A guest: its NIC and its attachment.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pci_function::attachment::{vfio_user, vhost_user_pci};
use serde::Serialize;
use serde_json::{Map, Value};
use vhost_daemon::Output;
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::finding::{Severity, Source};
use vhost_daemon::record::{Begun, OrderError, Turns};
use vhost_daemon::trace::Tracer;
use vhost_nic::doors::GuestDoors;
use vhost_nic::fault::NicFault;
use vhost_nic::hca::blue_flame;
use vhost_nic::hca::limits::Limits;
use vhost_nic::hca::nic_finding::trace_attachment;
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, NicConfig, NicDoors, NicSnapshot};
use vhost_nic::pci::{FunctionConfig, FunctionParts, FunctionSnapshot, Identity, PciFunction};
use vhost_nic::record::{Order, Recorder, Setup};

use crate::args::{Args, Attach, GuestPlan};

/// A guest and its NIC.
pub struct Guest {
    name: String,
    nic: Arc<Nic>,
    function: Arc<PciFunction>,
    doors: GuestDoors,
    setup: Setup,
    server: Option<Server>,
}

/// The thread that serves the guest's socket.
enum Server {
    VfioUser(vfio_user::Server),
    VhostUser(vhost_user_pci::Server),
}

/// Doors of a guest, as far as it has them.
pub struct DoorPlan<'a> {
    /// Faults, if the daemon has any.
    pub faults: Option<&'a Arc<Faults<NicFault>>>,
    /// Turns, if the daemon records.
    pub turns: Option<&'a Arc<Turns>>,
    /// Record of the guest.
    pub record: Option<File>,
}

/// Capabilities of the adapter's owner, which a virtual function does not report. Registers of the port stay writable.
const OF_PHYSICAL_FUNCTIONS: [&str; 4] = ["vport_group_manager", "beacon_led", "ets", "dcbx"];

fn zeroed_capabilities(args: &Args, identity: Identity) -> Vec<String> {
    let lacking = identity
        .is_virtual()
        .then_some(OF_PHYSICAL_FUNCTIONS)
        .into_iter()
        .flatten();
    args.zero_capability
        .iter()
        .cloned()
        .chain(lacking.map(str::to_owned))
        .collect()
}

impl Guest {
    /// Creates a guest whose NIC is connected to the switch; its VMM cannot connect before [`Guest::serve`], and may
    /// then share `max_memory` bytes. Faults strike at its doors, if given, and its NIC takes turns; its record is this
    /// file, if it has one.
    pub fn new(
        name: &str,
        plan: &GuestPlan,
        vhca_id: u16,
        args: &Args,
        switch: &Arc<Switch>,
        DoorPlan { faults, turns, record }: DoorPlan<'_>,
        max_memory: u64,
    ) -> Result<Self> {
        let parts = FunctionParts::new(plan.vectors);
        parts.dma.set_max_bytes(max_memory);
        let config = NicConfig {
            name: name.to_owned(),
            mac: plan.mac,
            identity: plan.identity,
            vhca_id,
            blue_flame: plan.blue_flame.then_some(blue_flame::COPY_TIMEOUT),
            busy_poll: Duration::from_micros(args.hot_period),
            pcie_latency: Duration::from_nanos(args.pcie_latency),
            spoof_check: plan.spoof_check,
            random_numbers: plan.random_numbers,
            check_wqes: args.check_wqes,
            zeroed_capabilities: zeroed_capabilities(args, plan.identity),
            limits: Limits::default(),
            memory_budget: args.guest_memory_budget,
            doors: NicDoors::default(),
        };
        let setup = Setup::new(&config, plan.identity, plan.vectors);
        let recorder = turns
            .map(|turns| recorder(turns, record, &setup, args.common.recordable.is_some()))
            .transpose()?;
        let faults = faults.map(|faults| GuestFaults::new(faults, name));
        let doors = GuestDoors::new(faults, Tracer::new(vhca_id), recorder);
        let function = FunctionConfig {
            identity: plan.identity,
            mac: plan.mac,
        };
        let (nic, function) = doors.assemble(config, parts, function, switch)?;
        Ok(Self {
            name: name.to_owned(),
            function,
            nic,
            doors,
            setup,
            server: None,
        })
    }

    /// Serves the VMMs that connect to the socket, until the guest is dropped.
    pub fn serve(&mut self, attach: Attach, listener: UnixListener) -> Result<()> {
        let (name, function) = (self.name.as_str(), self.function.clone());
        self.server = Some(match attach {
            Attach::VfioUser => Server::VfioUser(vfio_user::Server::start(name, listener, function)?),
            Attach::VhostUser => {
                let observer = trace_attachment(Tracer::new(self.setup.vhca_id));
                Server::VhostUser(vhost_user_pci::Server::start_observed(
                    name, listener, function, observer,
                )?)
            }
        });
        Ok(())
    }

    /// Returns the server of the guest's socket.
    pub fn server(&mut self) -> Option<&mut vhost_daemon::Server> {
        self.server.as_mut().map(|server| match server {
            Server::VfioUser(server) => server.as_mut(),
            Server::VhostUser(server) => server.as_mut(),
        })
    }

    /// Takes the actions of the faults whose occasion is now; see [`Doors::now`].
    pub fn act_now(&self) {
        if let Some(faults) = self.doors.faults() {
            faults.now();
        }
    }

    /// Begins a record of the guest in a file. Returns whether it has begun; otherwise it will when the VMM is gone.
    pub fn begin_record(&self, path: &Path) -> Result<bool> {
        let recorder = self.doors.recorder().ok_or(OrderError::NotRecordable)?;
        // The generator goes on after a reset, and a replay begins with its seed.
        if self.setup.random_numbers.is_some() {
            bail!("a guest with random-numbers is recorded from the start only (record=FILE)");
        }
        let order = || -> Result<Order> {
            let file = Output::open_file(path).context("cannot write the record")?;
            let nic = Arc::downgrade(&self.nic);
            Ok(Order {
                file,
                setup: self.setup.clone(),
                restore: Box::new(move || {
                    if let Some(nic) = nic.upgrade() {
                        nic.restate_cable();
                    }
                }),
            })
        };
        let begun = recorder.begin(order, || self.function.power_cycle())?;
        Ok(begun == Begun::Now)
    }

    /// Ends the record of the guest, or takes back the order for one. Returns false if there is neither.
    pub fn end_recording(&self) -> bool {
        self.doors.recorder().is_some_and(Recorder::end)
    }

    /// Ends the record of the guest, if there is one.
    pub fn end_record(&self) {
        if let Some(recorder) = self.doors.recorder() {
            recorder.finish();
        }
    }

    /// Name of the guest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the findings of NIC and attachment.
    pub fn findings(&self) -> Vec<Arc<dyn Source>> {
        let mut sources: Vec<Arc<dyn Source>> = vec![self.nic.findings().clone()];
        if let Some(Server::VhostUser(server)) = &self.server {
            sources.push(server.stats().findings().clone());
        }
        sources
    }

    /// Returns the live objects: each kind a map from numbers to objects.
    pub fn objects(&self) -> Map<String, Value> {
        match self.nic.objects() {
            Value::Object(kinds) => kinds,
            _ => Map::new(),
        }
    }

    /// Sets the speed in Gb/s that the other end of the cable has, `None` for all. Returns whether the port has it.
    #[must_use]
    pub fn set_partner_speed(&self, gbps: Option<u32>) -> bool {
        self.nic.set_partner_speed(gbps)
    }

    /// Resets the function as a function-level reset does, without the guest.
    pub fn reset(&self) {
        self.function.reset();
    }

    /// Takes a snapshot of state, counters and live objects.
    pub fn snapshot(&self) -> GuestSnapshot {
        self.with_nic(self.nic.snapshot())
    }

    /// Takes a snapshot of state and counters.
    pub fn summary(&self) -> GuestSnapshot {
        self.with_nic(self.nic.summary())
    }

    fn with_nic(&self, nic: NicSnapshot) -> GuestSnapshot {
        GuestSnapshot {
            guest: self.name.clone(),
            attachment: self.server.as_ref().map(|server| match server {
                Server::VfioUser(server) => AttachmentSnapshot::VfioUser(server.stats()),
                Server::VhostUser(server) => AttachmentSnapshot::VhostUser(server.stats().clone()),
            }),
            function: self.function.stats(),
            nic,
        }
    }
}

/// Begins the record of a guest; a guest that is not recorded only takes part in the turns, unless it is recordable.
fn recorder(turns: &Arc<Turns>, record: Option<File>, setup: &Setup, recordable: bool) -> Result<Recorder> {
    match record {
        Some(file) => Recorder::to_file(turns.clone(), file, setup).context("cannot begin the record"),
        None if recordable => Ok(Recorder::on_demand(turns.clone(), setup)),
        None => Ok(Recorder::turns_only(turns.clone(), &setup.name)),
    }
}

/// Opens the record of a guest that has one.
pub fn open_record(plan: &GuestPlan) -> Result<Option<File>> {
    let Some(path) = &plan.record else { return Ok(None) };
    let file = Output::open_file(path).with_context(|| format!("cannot write the record to {}", path.display()))?;
    Ok(Some(file))
}

/// Snapshot of a [`Guest`].
#[derive(Serialize)]
pub struct GuestSnapshot {
    /// Name of the guest.
    pub guest: String,
    attachment: Option<AttachmentSnapshot>,
    /// Counters of the function.
    pub function: FunctionSnapshot,
    /// State and counters of the NIC.
    #[serde(flatten)]
    pub nic: NicSnapshot,
}

impl GuestSnapshot {
    /// Errors of the guest in the use of its attachment, by kind.
    pub fn attachment_errors(&self) -> Vec<(&'static str, u64)> {
        match &self.attachment {
            Some(AttachmentSnapshot::VhostUser(stats)) => stats.findings().counts_of(Severity::Error).collect(),
            Some(AttachmentSnapshot::VfioUser(_)) | None => Vec::new(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum AttachmentSnapshot {
    VfioUser(vfio_user::VfioUserSnapshot),
    VhostUser(Arc<vhost_user_pci::VhostUserPciStats>),
}
