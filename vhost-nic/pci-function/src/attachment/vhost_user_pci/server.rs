//! Listening socket and the thread that serves its guests, one after the other.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::info;
use parking_lot::Mutex;
use vhost_daemon::vhost_user::{ConnectionError, Supervisor};
use vhost_daemon::vring::Memory;
use vhost_daemon::{Current, GuardedRam, Messenger, Service};
use vm_memory::GuestMemoryMmap;

use super::backend::VhostUserPciBackend;
use super::stats::VhostUserPciStats;
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
    messenger: Mutex<Arc<Messenger>>,
    /// Messengers that guests have blocked.
    blocked: AtomicUsize,
    supervisor: Supervisor,
}

/// Messengers that guests of a socket may block, each with a thread, before one of them serves the next guest.
const MAX_BLOCKED: usize = 64;

impl VhostUserPciService {
    /// Returns a messenger that no earlier guest has blocked.
    fn messenger(&self) -> Arc<Messenger> {
        let mut messenger = self.messenger.lock();
        if messenger.is_busy() && self.blocked.fetch_add(1, Ordering::Relaxed) < MAX_BLOCKED {
            *messenger = Arc::new(Messenger::new(self.stats.guest()));
        }
        messenger.clone()
    }
}

impl Server {
    /// Serves `function` on a thread of its own. `name` names the guest in logs.
    pub fn start(name: &str, listener: UnixListener, function: Arc<PciFunction>) -> io::Result<Self> {
        let stats = Arc::new(VhostUserPciStats::new(name));
        let service = VhostUserPciService {
            function,
            stats: stats.clone(),
            messenger: Mutex::new(Arc::new(Messenger::new(name))),
            blocked: AtomicUsize::new(0),
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
            self.messenger(),
        ));
        let connected = || {
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
