//! The ports of the switch whose peers are outside the daemon.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use log::info;
use vhost_daemon::OwnSockets;
use vhost_nic::external_port::{
    DatagramMedium, ExternalPort, Medium, PacketMedium, StreamMedium, TapMedium, VxlanMedium,
};
use vhost_nic::net::Switch;

use crate::args::{PortArg, PortMedium};

/// A port whose socket or device exists, and that is not at the switch.
pub struct OpenPort {
    name: String,
    medium: Box<dyn Medium>,
    queue: usize,
}

/// Opens what all ports need of the host. Their names must differ, also from those of the guests.
pub fn open(plans: &[PortArg], guests: &[String], own: &mut OwnSockets) -> Result<Vec<OpenPort>> {
    let mut ports: Vec<OpenPort> = Vec::new();
    for plan in plans {
        if guests.contains(&plan.name) || ports.iter().any(|port| port.name == plan.name) {
            bail!("two ports of the switch cannot share the name {}", plan.name);
        }
        ports.push(OpenPort {
            name: plan.name.clone(),
            medium: medium(plan, own)?,
            queue: plan.queue as usize,
        });
    }
    Ok(ports)
}

fn medium(plan: &PortArg, own: &mut OwnSockets) -> Result<Box<dyn Medium>> {
    let medium: Box<dyn Medium> = match &plan.medium {
        PortMedium::Stream(path) => Box::new(StreamMedium::new(&plan.name, own.listen(path)?)?),
        PortMedium::Datagram { local, remote } => {
            Box::new(DatagramMedium::new(own.bind_datagram(local)?, remote.clone())?)
        }
        PortMedium::Tap(plan) => Box::new(TapMedium::open(plan)?),
        PortMedium::Packet(interface) => Box::new(PacketMedium::open(interface)?),
        PortMedium::Vxlan(vxlan) => Box::new(VxlanMedium::open(&plan.name, vxlan)?),
    };
    Ok(medium)
}

impl OpenPort {
    /// Name of the port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Attaches the port to the switch.
    pub fn start(self, switch: &Arc<Switch>) -> Result<ExternalPort> {
        info!("{}: a port beside the NICs", self.name);
        ExternalPort::start(switch, &self.name, self.medium, self.queue)
            .with_context(|| format!("cannot start the port {}", self.name))
    }
}
