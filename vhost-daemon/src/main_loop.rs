//! The event loop of the main thread: signals, and the sockets for the operator.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use thiserror::Error;
use vmm_sys_util::epoll::EventSet;

use crate::control_socket::ControlService;
use crate::controlled::Controlled;
use crate::foreign_eventfd::check_signals;
use crate::heartbeat::watch;
use crate::metrics_socket::MetricsService;
use crate::sandbox::{ThreadKind, confine};
use crate::service_manager::ServiceManager;
use crate::socket_server::{Serve, SocketServer};
use crate::stats_socket::StatsService;

/// Longest time between two looks at the threads.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

type Subscriber = Rc<RefCell<dyn MutEventSubscriber>>;

/// A failure of the main loop.
#[derive(Debug, Error)]
pub enum MainLoopError {
    /// The event loop could not be created, or failed.
    #[error("the event loop failed")]
    Events(#[from] event_manager::Error),
    /// The signal handlers could not be installed.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// Guests cannot be interrupted.
    #[error("cannot signal eventfds: the kernel needs asynchronous I/O, and room for it (fs.aio-max-nr)")]
    EventFds(#[source] io::Error),
    /// A socket could not be served.
    #[error("cannot serve the {name} socket")]
    Socket {
        /// Name of the socket.
        name: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// The event loop of the main thread.
pub struct MainLoop {
    manager: EventManager<Subscriber>,
    stop: Rc<Cell<bool>>,
    service_manager: ServiceManager,
}

impl MainLoop {
    /// Creates the loop. From now on SIGTERM, SIGINT and SIGHUP end the loop instead of the process.
    pub fn new() -> Result<Self, MainLoopError> {
        check_signals().map_err(MainLoopError::EventFds)?;
        let mut manager = EventManager::<Subscriber>::new()?;
        let stop = Rc::default();
        let signals = Signals::new(&stop).map_err(MainLoopError::Signals)?;
        manager.add_subscriber(Rc::new(RefCell::new(signals)));
        Ok(Self {
            manager,
            stop,
            service_manager: ServiceManager::connect(),
        })
    }

    /// Answers every connection to `listener` with the daemon's state as a JSON document.
    pub fn serve_stats<D: Controlled>(&mut self, listener: UnixListener, daemon: &Arc<D>) -> Result<(), MainLoopError> {
        self.serve("stats", listener, StatsService::new(daemon))
    }

    /// Serves requests to the daemon.
    pub fn serve_control<D: Controlled>(
        &mut self,
        listener: UnixListener,
        daemon: &Arc<D>,
    ) -> Result<(), MainLoopError> {
        self.serve("control", listener, ControlService::new(daemon))
    }

    /// Answers every connection to `listener` with the daemon's metrics.
    pub fn serve_metrics<D: Controlled>(
        &mut self,
        listener: UnixListener,
        daemon: &Arc<D>,
    ) -> Result<(), MainLoopError> {
        self.serve("metrics", listener, MetricsService::new(daemon))
    }

    fn serve(&mut self, name: &'static str, listener: UnixListener, service: impl Serve) -> Result<(), MainLoopError> {
        let server = SocketServer::new(name, listener, service);
        let server = server.map_err(|source| MainLoopError::Socket { name, source })?;
        self.manager.add_subscriber(Rc::new(RefCell::new(server)));
        Ok(())
    }

    /// Runs until a signal. Meanwhile looks at the threads that serve guests, and notifies the watchdog of the service
    /// manager as long as none of them is stuck.
    pub fn run(&mut self) -> Result<(), MainLoopError> {
        confine(ThreadKind::Main);
        let interval = self
            .service_manager
            .interval()
            .unwrap_or(LOOK_INTERVAL)
            .min(LOOK_INTERVAL);
        let mut next = Instant::now();
        self.service_manager.ready();
        while !self.stop.get() {
            let now = Instant::now();
            if now >= next {
                next = now + interval;
                if watch(now) == 0 {
                    self.service_manager.alive(now);
                }
            }
            // Rounded up: a wait of 0 ms would be none.
            let wait = next.saturating_duration_since(now).as_millis() as i32 + 1;
            self.manager.run_with_timeout(wait)?;
        }
        self.service_manager.stopping();
        info!("ending on a signal");
        Ok(())
    }
}

/// SIGTERM, SIGINT and SIGHUP as an event source.
struct Signals {
    pipe: UnixStream,
    seen: Rc<Cell<bool>>,
}

impl Signals {
    fn new(seen: &Rc<Cell<bool>>) -> io::Result<Self> {
        let (pipe, notify) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, notify.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGHUP, notify.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, notify)?;
        Ok(Self {
            pipe,
            seen: seen.clone(),
        })
    }
}

impl MutEventSubscriber for Signals {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.pipe.read(&mut [0; 16]);
        self.seen.set(true);
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.pipe, EventSet::IN)) {
            warn!("signals are ignored: {error}");
        }
    }
}
