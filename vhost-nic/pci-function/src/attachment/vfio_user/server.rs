//! A socket and the clients it serves, one after the other.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use log::{debug, warn};
use vhost_daemon::{Current, Service};

use super::connection::serve_client;
use super::stats::{VfioUserSnapshot, VfioUserStats};
use crate::attachment::release;
use crate::function::PciFunction;

/// Serves a function to the clients of a socket, one at a time. Dropping it stops it.
pub struct Server {
    server: vhost_daemon::Server,
    stats: Arc<VfioUserStats>,
}

struct VfioUserService {
    name: String,
    function: Arc<PciFunction>,
    stats: Arc<VfioUserStats>,
}

impl Server {
    /// Serves the function on a thread of its own. `name` names the guest in logs.
    pub fn start(name: impl Into<String>, listener: UnixListener, function: Arc<PciFunction>) -> io::Result<Self> {
        let (name, stats) = (name.into(), Arc::<VfioUserStats>::default());
        let service = VfioUserService {
            name: name.clone(),
            function,
            stats: stats.clone(),
        };
        let server = vhost_daemon::Server::start(name, listener, service)?;
        Ok(Self { server, stats })
    }

    /// Returns the counters of all connections.
    pub fn stats(&self) -> VfioUserSnapshot {
        self.stats.snapshot()
    }

    /// Ends the client's connection and the thread, and waits for it. A QEMU that is still connected aborts.
    pub fn stop(&mut self) {
        self.server.stop();
    }
}

impl AsMut<vhost_daemon::Server> for Server {
    fn as_mut(&mut self) -> &mut vhost_daemon::Server {
        &mut self.server
    }
}

impl Service for VfioUserService {
    type Error = io::Error;

    fn serve(&self, listener: &UnixListener, current: &Current) -> io::Result<()> {
        let (client, _) = listener.accept()?;
        debug!("{}: a client connected", self.name);
        let (name, lossy) = (self.name.clone(), client.try_clone()?);
        self.function.dma().loss().set(move |reason| {
            warn!("{name}: {reason}; its connection ends");
            let _ = lossy.shutdown(Shutdown::Both);
        });
        let ours = client.try_clone()?;
        current.set(move || {
            // Fails only if the client is gone.
            let _ = ours.shutdown(Shutdown::Both);
        });
        serve_client(&self.name, &client, &self.function, &self.stats);
        Ok(())
    }

    fn reset(&self) {
        release(&self.name, &self.function);
    }
}
