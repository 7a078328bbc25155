//! Listening socket and the thread that serves its guests, one after the other.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use log::info;
use vhost_daemon::finding::Observer;
use vhost_daemon::vhost_user::{ConnectionError, Supervisor};
use vhost_daemon::vring::Memory;
use vhost_daemon::{Current, GuardedRam, Service};
use vm_memory::GuestMemoryMmap;

use super::backend::VhostUserPciBackend;
use super::stats::{Finding, VhostUserPciStats};
use crate::attachment::release;
use crate::function::PciFunction;

/// Serves a function to the User Mode Linux guests that connect to a socket, one after the other. Dropping it stops it.
pub struct Server {
    server: vhost_daemon::Server,
    stats: Arc<VhostUserPciStats>,
}

struct VhostUserPciService {
    function: Arc<PciFunction>,
    stats: Arc<VhostUserPciStats>,
    supervisor: Supervisor,
}

impl Server {
    /// Serves `function` on a thread of its own. `name` names the guest in logs.
    pub fn start(name: &str, listener: UnixListener, function: Arc<PciFunction>) -> io::Result<Self> {
        Self::with_stats(VhostUserPciStats::new(name), listener, function)
    }

    /// Does the same, and shows the findings of the guest to `observer`.
    pub fn start_observed(
        name: &str,
        listener: UnixListener,
        function: Arc<PciFunction>,
        observer: Observer<Finding>,
    ) -> io::Result<Self> {
        Self::with_stats(VhostUserPciStats::observed_by(name, observer), listener, function)
    }

    fn with_stats(stats: VhostUserPciStats, listener: UnixListener, function: Arc<PciFunction>) -> io::Result<Self> {
        let stats = Arc::new(stats);
        let name = stats.guest();
        let service = VhostUserPciService {
            function,
            stats: stats.clone(),
            supervisor: Supervisor::new(name),
        };
        let server = vhost_daemon::Server::start(name, listener, service)?;
        Ok(Self { server, stats })
    }

    /// Returns the counters of all connections.
    pub fn stats(&self) -> &Arc<VhostUserPciStats> {
        &self.stats
    }

    /// Ends the connection, if there is one, and accepts no more. When it returns, the function is reset and has no
    /// memory.
    pub fn stop(&mut self) {
        self.server.stop();
    }
}

impl AsMut<vhost_daemon::Server> for Server {
    fn as_mut(&mut self) -> &mut vhost_daemon::Server {
        &mut self.server
    }
}

impl Service for VhostUserPciService {
    type Error = ConnectionError;

    fn serve(&self, listener: &UnixListener, current: &Current) -> Result<(), ConnectionError> {
        let guest = self.stats.guest();
        let described = Memory::new(GuestMemoryMmap::new());
        let ram = GuardedRam::new(self.supervisor.loss().clone(), self.function.dma().max_bytes());
        let backend = Arc::new(VhostUserPciBackend::new(
            self.function.clone(),
            ram,
            self.stats.clone(),
            self.supervisor.loss().clone(),
        ));
        let connected = |_: &_| {
            self.stats.counters.connections.increment();
            info!("{guest}: a guest connected");
        };
        let disconnected = || {
            info!("{guest}: the guest disconnected");
            backend.close();
        };
        self.supervisor
            .serve(backend.clone(), described, listener, current, connected, disconnected)
    }

    fn reset(&self) {
        release(self.stats.guest(), &self.function);
    }
}
