//! Listening socket and the thread that serves its clients, one after the other.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use log::{debug, warn};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::connection::serve_stream;
use super::stats::{VfioUserSnapshot, VfioUserStats};
use crate::function::PciFunction;

/// Pause after a failed accept: for want of file descriptors, say.
const ACCEPT_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Server of a function: one client at a time, the next when that has disconnected. Stops when dropped.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    function: Arc<PciFunction>,
    stats: VfioUserStats,
    stopped: AtomicBool,
    /// Eventfd that stops the thread.
    stop: OwnedFd,
    /// Connection being served.
    client: Mutex<Option<Arc<UnixStream>>>,
}

impl Server {
    /// Starts the thread. `name` is the guest's name in the log.
    pub fn start(name: impl Into<String>, listener: UnixListener, function: Arc<PciFunction>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            name: name.into(),
            function,
            stats: VfioUserStats::default(),
            stopped: AtomicBool::new(false),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            client: Mutex::default(),
        });
        let thread = thread::Builder::new().name("vfio-user".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run(&listener)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Snapshot of the counters.
    pub fn stats(&self) -> VfioUserSnapshot {
        self.shared.stats.snapshot()
    }

    /// Closes the client's connection, and joins the thread. A QEMU that is still connected aborts.
    pub fn stop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // It is written once, so it is not full.
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Some(client) = &*self.shared.client.lock() {
            // Fails only if the client is gone.
            let _ = client.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("{}: the server thread panicked", self.shared.name);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, listener: &UnixListener) {
        while let Some(client) = self.accept(listener) {
            debug!("{}: a client connected", self.name);
            let client = Arc::new(client);
            *self.client.lock() = Some(client.clone());
            // Either this thread sees the flag, or the one that stops the server sees the client.
            if !self.stopped.load(Ordering::SeqCst) {
                serve_stream(&self.name, &client, &self.function, &self.stats);
            }
            *self.client.lock() = None;
        }
    }

    /// Waits for a client. There is none when the server shall end.
    fn accept(&self, listener: &UnixListener) -> Option<UnixStream> {
        loop {
            let mut ready = [
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            // A failed wait is one that was interrupted: look again.
            let _ = poll(&mut ready, None);
            if self.stopped.load(Ordering::SeqCst) {
                return None;
            }
            match listener.accept() {
                Ok((client, _)) => return Some(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    warn!("{}: a client cannot be accepted: {error}", self.name);
                    let _ = poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&ACCEPT_PAUSE));
                }
            }
        }
    }
}
