//! The ports of the switch whose peers are outside the daemon.

use std::os::unix::net::UnixListener;
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
    way: Way,
    queue: usize,
}

/// Way to the peer of a port.
enum Way {
    Medium(Box<dyn Medium>),
    /// The listening socket for front-ends of vhost-user-net, and the pairs of queues of each.
    VhostUser(UnixListener, usize),
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
            way: way(plan, own)?,
            queue: plan.queue as usize,
        });
    }
    Ok(ports)
}

fn way(plan: &PortArg, own: &mut OwnSockets) -> Result<Way> {
    let medium: Box<dyn Medium> = match &plan.medium {
        PortMedium::Stream(path) => Box::new(StreamMedium::new(&plan.name, own.listen(path)?)?),
        PortMedium::Datagram { local, remote } => {
            Box::new(DatagramMedium::new(own.bind_datagram(local)?, remote.clone())?)
        }
        PortMedium::Tap(plan) => Box::new(TapMedium::open(plan)?),
        PortMedium::Packet(interface) => Box::new(PacketMedium::open(interface)?),
        PortMedium::Vxlan(vxlan) => Box::new(VxlanMedium::open(&plan.name, vxlan)?),
        PortMedium::VhostUser { socket, pairs } => return Ok(Way::VhostUser(own.listen(socket)?, *pairs)),
    };
    Ok(Way::Medium(medium))
}

impl OpenPort {
    /// Name of the port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the peer shares its memory.
    pub fn shares_memory(&self) -> bool {
        matches!(self.way, Way::VhostUser(..))
    }

    /// Attaches the port to the switch. A peer may share `max_memory` bytes.
    pub fn start(self, switch: &Arc<Switch>, max_memory: u64) -> Result<ExternalPort> {
        info!("{}: a port beside the NICs", self.name);
        let started = match self.way {
            Way::Medium(medium) => ExternalPort::start(switch, &self.name, medium, self.queue),
            Way::VhostUser(listener, pairs) => {
                ExternalPort::serve_vhost_user(switch, &self.name, listener, pairs, max_memory, self.queue)
            }
        };
        started.with_context(|| format!("cannot start the port {}", self.name))
    }
}
