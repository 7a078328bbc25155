//! Listening socket and the thread that serves its guests, one after the other.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::{debug, error, info, warn};
use parking_lot::Mutex;
use rustix::net::Shutdown;
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error, ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::function::PciFunction;

use super::backend::VhostUserPciBackend;
use super::stats::{VhostUserPciSnapshot, VhostUserPciStats};

/// Pause after a guest could not be served: for want of file descriptors or threads, say.
const PAUSE: Duration = Duration::from_millis(200);

/// Server of a function: one User Mode Linux guest at a time, the next when that has disconnected. Stops when dropped.
pub struct Server {
    shared: Arc<Shared>,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    function: Arc<PciFunction>,
    stats: Arc<VhostUserPciStats>,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    stopping: bool,
    current: Option<ShutdownHandle>,
}

impl Server {
    /// Starts the thread. `name` is the guest's name in the log.
    pub fn start(name: &str, listener: UnixListener, function: Arc<PciFunction>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            function,
            stats: Arc::new(VhostUserPciStats::new(name)),
            connection: Mutex::default(),
        });
        listener.set_nonblocking(false)?;
        let own = listener.try_clone()?;
        let serving = shared.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serving.serve(&mut Listener::from(own)))?;
        Ok(Self {
            shared,
            listener,
            thread: Some(thread),
        })
    }

    /// Snapshot of the counters.
    pub fn stats(&self) -> VhostUserPciSnapshot {
        self.shared.stats.snapshot()
    }

    /// Closes the connection, if there is one, and accepts no more. When it returns, the function is reset and has no
    /// memory.
    pub fn stop(&mut self) {
        {
            let mut connection = self.shared.connection.lock();
            connection.stopping = true;
            if let Some(handle) = connection.current.take() {
                handle.shutdown();
            }
        }
        if let Some(thread) = self.thread.take() {
            // Wakes the thread if it waits for a guest.
            let woken = rustix::net::shutdown(&self.listener, Shutdown::Both);
            if woken.is_ok() && thread.join().is_err() {
                error!(
                    "{}: the thread that serves the socket panicked",
                    self.shared.stats.guest()
                );
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self, listener: &mut Listener) {
        while !self.connection.lock().stopping {
            if let Err(error) = self.serve_connection(listener)
                && !self.connection.lock().stopping
            {
                warn!("{}: a guest could not be served: {error}", self.stats.guest());
                thread::sleep(PAUSE);
            }
        }
    }

    /// Waits for a guest, and serves it until it disconnects.
    fn serve_connection(&self, listener: &mut Listener) -> Result<(), Error> {
        let guest = self.stats.guest();
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let backend = Arc::new(VhostUserPciBackend::new(
            self.function.clone(),
            memory.clone(),
            self.stats.clone(),
        ));
        let mut daemon = VhostUserDaemon::new(guest.to_owned(), backend.clone(), memory)?;
        daemon.start(listener)?;
        self.stats.connections.add();
        info!("{guest}: a guest connected");
        self.remember(daemon.shutdown_handle());
        match daemon.wait() {
            // User Mode Linux never says that it goes.
            Ok(()) | Err(Error::HandleRequest(VhostUserError::Disconnected | VhostUserError::PartialMessage)) => {
                info!("{guest}: the guest disconnected");
            }
            Err(error) => info!("{guest}: the guest's connection ended: {error}"),
        }
        self.remember(None);
        backend.close();
        // This waits for the workers.
        drop(daemon);
        self.function.disconnect();
        self.function.reset();
        self.function.dma().unmap_all();
        debug!("{guest}: the function is reset");
        Ok(())
    }

    fn remember(&self, handle: Option<ShutdownHandle>) {
        let mut connection = self.connection.lock();
        if let (true, Some(handle)) = (connection.stopping, &handle) {
            handle.shutdown();
        }
        connection.current = handle;
    }
}
