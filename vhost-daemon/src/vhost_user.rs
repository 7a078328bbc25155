//! The vhost-user connections of a guest, each from accept to the end of its workers.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use parking_lot::Mutex;
use thiserror::Error;
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error, VhostUserBackend, VhostUserDaemon};
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::lost_memory::Loss;
use crate::server::Current;
use crate::vring::{Memory, Vring};

/// A connection that could not be served.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The listener could not be duplicated.
    #[error("cannot duplicate the listening socket")]
    Listener(#[source] std::io::Error),
    /// Descriptors or threads have run out. The text is the source's own: it has no source chain.
    #[error("{0}")]
    Start(Error),
}

/// Time in which the workers of a connection that has ended usually end.
const JOIN_TIME: Duration = Duration::from_secs(1);
/// Connections of a guest whose workers may be left while the next one is served.
const MAX_LEFTOVERS: usize = 8;

/// Supervisor of the connections of one guest.
#[derive(Debug)]
pub struct Supervisor {
    name: String,
    loss: Arc<Loss>,
    /// Number of connections whose workers have not ended. A worker may wait for an answer of its VMM, over a channel
    /// that another process keeps open: it must not keep the guest's socket from the next VMM.
    leftovers: Arc<Mutex<usize>>,
}

impl Supervisor {
    /// Creates the supervisor of a guest of this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            loss: Arc::default(),
            leftovers: Arc::default(),
        }
    }

    /// Returns what ends the connection when guest memory is lost.
    pub fn loss(&self) -> &Arc<Loss> {
        &self.loss
    }

    /// Accepts a connection and serves it with `backend` until it ends; returns when its workers are gone, or have
    /// had some time.
    ///
    /// `connected` runs once the VMM is connected, with the threads of the connection; `disconnected` as soon as the
    /// VMM is gone: workers that still process queues must find them closed, since a VMM that died may have left
    /// requests in them.
    ///
    /// # Errors
    ///
    /// Fails when descriptors or threads have run out.
    pub fn serve<B: VhostUserBackend<Bitmap = (), Vring = Vring> + 'static>(
        &self,
        backend: Arc<B>,
        memory: Memory,
        listener: &UnixListener,
        current: &Current,
        connected: impl FnOnce(&VhostUserDaemon<Arc<B>>),
        disconnected: impl FnOnce(),
    ) -> Result<(), ConnectionError> {
        let name = &self.name;
        let mut listener = Listener::from(listener.try_clone().map_err(ConnectionError::Listener)?);
        let mut daemon = VhostUserDaemon::new(name.clone(), backend, memory).map_err(ConnectionError::Start)?;
        daemon.start(&mut listener).map_err(ConnectionError::Start)?;
        if let Some(handle) = daemon.shutdown_handle() {
            let name = name.clone();
            self.loss.set(move |reason| {
                warn!("{name}: {reason}; its connection ends");
                handle.shutdown();
            });
        }
        if let Some(handle) = daemon.shutdown_handle() {
            current.set(move || handle.shutdown());
        }
        connected(&daemon);
        let ended = daemon.wait();
        self.loss.clear();
        disconnected();
        match ended {
            // A VMM that dies just closes the socket, and User Mode Linux always does.
            Ok(()) | Err(Error::HandleRequest(VhostUserError::Disconnected | VhostUserError::PartialMessage)) => {
                debug!("{name}: the VMM disconnected");
            }
            Err(error) => debug!("{name}: the connection ended: {error}"),
        }
        self.join(daemon);
        Ok(())
    }

    /// Ends the workers of a connection. Waits for them for a while, or without a limit if too many are left already.
    fn join<B: VhostUserBackend<Bitmap = (), Vring = Vring> + 'static>(&self, daemon: VhostUserDaemon<Arc<B>>) {
        let (ended, until_ended) = mpsc::channel::<()>();
        let leftovers = self.leftovers.clone();
        *leftovers.lock() += 1;
        let join = move || {
            drop(daemon);
            *leftovers.lock() -= 1;
            drop(ended);
        };
        // Without a thread, the closure and the daemon in it are dropped here.
        if thread::Builder::new().name("join".to_owned()).spawn(join).is_err() {
            *self.leftovers.lock() -= 1;
            return;
        }
        if until_ended.recv_timeout(JOIN_TIME) == Err(RecvTimeoutError::Timeout) {
            warn!("{}: a worker still waits for the VMM that is gone", self.name);
            if *self.leftovers.lock() > MAX_LEFTOVERS {
                let _ = until_ended.recv();
            }
        }
    }
}

/// Exit events of a connection's workers. vhost-user-backend 0.24 takes the descriptors that
/// [`exit_event`](VhostUserBackend::exit_event) returns and never closes them; this keeps their numbers and closes
/// them.
///
/// It must be a field of the [`VhostUserBackend`]: every worker holds the backend, so dropping the field proves that no
/// worker waits for the events any more.
#[derive(Debug, Default)]
pub struct ExitEvents(Mutex<Vec<RawFd>>);

impl ExitEvents {
    /// Creates the exit event of a worker. Logs a failure and returns `None`: the worker then cannot be stopped.
    pub fn create(&self) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC)
            .inspect(|(consumer, _)| self.0.lock().push(consumer.as_raw_fd()))
            .inspect_err(|error| warn!("cannot create the exit event of a worker thread: {error}"))
            .ok()
    }
}

impl Drop for ExitEvents {
    #[expect(unsafe_code, reason = "takes ownership of descriptors that nothing else closes")]
    fn drop(&mut self) {
        for fd in self.0.get_mut().drain(..) {
            // SAFETY: the consumer with this descriptor was turned into a bare number, which its only holder, a
            // worker's epoll, never closes; the worker is gone.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}
