//! A guest with a virtio-net device, or any other front-end of vhost-user-net: the port is its back-end.
//!
//! One thread for a connection moves the frames of all its queues, straight between the guest's memory and the switch.

mod backend;
mod features;
mod receiveq;
mod ring;
mod transmitq;

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use log::info;
use vhost_daemon::vhost_user::{ConnectionError, Supervisor};
use vhost_daemon::vring::Memory;
use vhost_daemon::{Current, GuardedRam, Service};
use vm_memory::GuestMemoryMmap;

use super::entrance::Entrance;
use backend::NetBackend;

pub use backend::MAX_QUEUE_PAIRS;

/// Service of a port's socket.
pub(super) struct VhostUserNet {
    entrance: Arc<Entrance>,
    supervisor: Supervisor,
    pairs: usize,
    max_memory: u64,
}

impl VhostUserNet {
    /// Creates the service of a port whose front-end has `pairs` pairs of queues, and may share `max_memory` bytes.
    pub fn new(entrance: Arc<Entrance>, pairs: usize, max_memory: u64) -> Self {
        Self {
            supervisor: Supervisor::new(&entrance.shared().name),
            entrance,
            pairs,
            max_memory,
        }
    }
}

impl Service for VhostUserNet {
    type Error = ConnectionError;

    fn serve(&self, listener: &UnixListener, current: &Current) -> Result<(), ConnectionError> {
        let name = &self.entrance.shared().name;
        let described = Memory::new(GuestMemoryMmap::new());
        let loss = self.supervisor.loss();
        let ram = GuardedRam::new(loss.clone(), self.max_memory);
        let backend = Arc::new(NetBackend::new(
            self.entrance.clone(),
            self.pairs,
            described.clone(),
            ram,
            loss.clone(),
        ));
        let started = |daemon: &backend::Daemon| {
            info!("{name}: a front-end connected");
            backend.watch_departure(daemon);
        };
        let disconnected = || {
            info!("{name}: the front-end disconnected");
            backend.close();
        };
        self.supervisor
            .serve(backend.clone(), described, listener, current, started, disconnected)
    }

    fn reset(&self) {
        // A panic may have left the link up.
        self.entrance.disconnect(0);
    }
}
