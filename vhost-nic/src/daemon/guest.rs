//! A guest: its NIC and its attachment.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use pci_function::attachment::{vfio_user, vhost_user_pci};
use serde::Serialize;
use serde_json::{Map, Value};
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::finding::Source;
use vhost_daemon::trace::Tracer;
use vhost_nic::fault::{Doors, NicFault};
use vhost_nic::hca::blue_flame;
use vhost_nic::hca::limits::Limits;
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, NicConfig, NicSnapshot};
use vhost_nic::pci::{Device, FunctionConfig, FunctionParts, FunctionSnapshot, PciFunction};

use crate::args::{Args, Attach, GuestPlan};

/// A guest and its NIC.
pub struct Guest {
    name: String,
    nic: Arc<Nic>,
    function: Arc<PciFunction>,
    doors: Option<Doors>,
    server: Option<Server>,
}

/// The thread that serves the guest's socket.
enum Server {
    VfioUser(vfio_user::Server),
    VhostUser(vhost_user_pci::Server),
}

impl Guest {
    /// Creates a guest whose NIC is connected to the switch; its VMM cannot connect before [`Guest::serve`]. With
    /// `faults`, the NIC has doors at which they strike.
    pub fn new(
        name: &str,
        plan: &GuestPlan,
        vhca_id: u16,
        args: &Args,
        switch: &Arc<Switch>,
        faults: Option<&Arc<Faults<NicFault>>>,
    ) -> Result<Self> {
        let parts = FunctionParts::new(plan.vectors);
        let doors = faults.map(|faults| Doors::new(GuestFaults::new(faults, name), Tracer::new(vhca_id)));
        if let Some(doors) = &doors {
            doors.install(&parts);
        }
        let config = NicConfig {
            name: name.to_owned(),
            mac: plan.mac,
            vhca_id,
            blue_flame: plan.blue_flame.then_some(blue_flame::COPY_TIMEOUT),
            busy_poll: Duration::from_micros(args.hot_period),
            pcie_latency: Duration::from_nanos(args.pcie_latency),
            check_wqes: args.check_wqes,
            zeroed_capabilities: args.zero_capability.clone(),
            limits: Limits::default(),
            doors: doors.as_ref().map(Doors::of_nic).unwrap_or_default(),
        };
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
        Ok(Self {
            name: name.to_owned(),
            function,
            nic,
            doors,
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
