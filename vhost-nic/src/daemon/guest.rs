//! A guest: its NIC and its attachment.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pci_function::attachment::{vfio_user, vhost_user_pci};
use serde::Serialize;
use serde_json::{Map, Value};
use vhost_daemon::Output;
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::finding::Source;
use vhost_daemon::record::Turns;
use vhost_daemon::trace::Tracer;
use vhost_nic::fault::{Doors, NicFault};
use vhost_nic::hca::blue_flame;
use vhost_nic::hca::limits::Limits;
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, NicConfig, NicSnapshot};
use vhost_nic::pci::{Device, FunctionConfig, FunctionParts, FunctionSnapshot, PciFunction};
use vhost_nic::record::{Recorder, Setup};

use crate::args::{Args, Attach, GuestPlan};

/// A guest and its NIC.
pub struct Guest {
    name: String,
    nic: Arc<Nic>,
    function: Arc<PciFunction>,
    doors: Option<Doors>,
    recorder: Option<Recorder>,
    server: Option<Server>,
}

/// Users of the doors of a guest's NIC.
#[derive(Clone, Copy)]
pub enum GuestDoors<'a> {
    /// Faults that strike there.
    Faults(&'a Arc<Faults<NicFault>>),
    /// The record of this guest or of another: the NICs take turns.
    Record(&'a Arc<Turns>),
}

/// The thread that serves the guest's socket.
enum Server {
    VfioUser(vfio_user::Server),
    VhostUser(vhost_user_pci::Server),
}

impl Guest {
    /// Creates a guest whose NIC is connected to the switch; its VMM cannot connect before [`Guest::serve`], and may
    /// then share `max_memory` bytes.
    pub fn new(
        name: &str,
        plan: &GuestPlan,
        vhca_id: u16,
        args: &Args,
        switch: &Arc<Switch>,
        at_doors: Option<GuestDoors<'_>>,
        max_memory: u64,
    ) -> Result<Self> {
        let parts = FunctionParts::new(plan.vectors);
        parts.dma.set_max_bytes(max_memory);
        let doors = match at_doors {
            Some(GuestDoors::Faults(faults)) => Some(Doors::new(GuestFaults::new(faults, name), Tracer::new(vhca_id))),
            _ => None,
        };
        if let Some(doors) = &doors {
            doors.install(&parts);
        }
        let mut config = NicConfig {
            name: name.to_owned(),
            mac: plan.mac,
            vhca_id,
            blue_flame: plan.blue_flame.then_some(blue_flame::COPY_TIMEOUT),
            busy_poll: Duration::from_micros(args.hot_period),
            pcie_latency: Duration::from_nanos(args.pcie_latency),
            spoof_check: plan.spoof_check,
            random_numbers: plan.random_numbers,
            check_wqes: args.check_wqes,
            zeroed_capabilities: args.zero_capability.clone(),
            limits: Limits::default(),
            memory_budget: args.guest_memory_budget,
            doors: doors.as_ref().map(Doors::of_nic).unwrap_or_default(),
        };
        let recorder = match at_doors {
            Some(GuestDoors::Record(turns)) => Some(recorder(turns, plan, &config)?),
            _ => None,
        };
        if let Some(recorder) = &recorder {
            recorder.install(&parts);
            config.doors = recorder.of_nic();
        }
        let nic = Nic::new(&config, &parts)?;
        nic.connect(switch);
        let config = FunctionConfig {
            identity: plan.identity,
            mac: plan.mac,
        };
        let device: Arc<dyn Device> = match &doors {
            Some(doors) => doors.bar(nic.clone()),
            None => nic.clone(),
        };
        let function = Arc::new(PciFunction::new(config, parts, device));
        if let Some(doors) = &doors {
            doors.connect(&nic, &function);
        }
        if let Some(recorder) = &recorder {
            recorder.guard(&function);
        }
        Ok(Self {
            name: name.to_owned(),
            function,
            nic,
            doors,
            recorder,
            server: None,
        })
    }

    /// Serves the VMMs that connect to the socket, until the guest is dropped.
    pub fn serve(&mut self, attach: Attach, listener: UnixListener) -> Result<()> {
        let (name, function) = (self.name.as_str(), self.function.clone());
        self.server = Some(match attach {
            Attach::VfioUser => Server::VfioUser(vfio_user::Server::start(name, listener, function)?),
            Attach::VhostUser => Server::VhostUser(vhost_user_pci::Server::start(name, listener, function)?),
        });
        Ok(())
    }

    /// Takes the actions of the faults whose occasion is now; see [`Doors::now`].
    pub fn act_now(&self) {
        if let Some(doors) = &self.doors {
            doors.now();
        }
    }

    /// Ends the record of the guest, if there is one.
    pub fn end_record(&self) {
        if let Some(recorder) = &self.recorder {
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

/// Opens the record of a guest; a guest that is not recorded only takes part in the turns.
fn recorder(turns: &Arc<Turns>, plan: &GuestPlan, config: &NicConfig) -> Result<Recorder> {
    let Some(path) = &plan.record else {
        return Ok(Recorder::turns_only(turns.clone(), &config.name));
    };
    let open = || {
        let output = Output::open(path)?;
        ensure!(output.is_regular, "it is not a regular file");
        let setup = Setup::new(config, plan.identity, plan.vectors);
        Ok(Recorder::to_file(turns.clone(), output.file, &setup)?)
    };
    open().with_context(|| format!("cannot write the record to {}", path.display()))
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

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum AttachmentSnapshot {
    VfioUser(vfio_user::VfioUserSnapshot),
    VhostUser(Arc<vhost_user_pci::VhostUserPciStats>),
}
