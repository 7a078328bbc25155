//! What the main thread waits for: signals, and readers of the counters.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use log::{info, warn};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use vmm_sys_util::epoll::EventSet;

use crate::stats::StatsServer;

type Subscriber = Arc<Mutex<dyn MutEventSubscriber>>;

/// The event loop of the main thread.
pub struct MainLoop {
    manager: EventManager<Subscriber>,
    stop: Arc<Mutex<StopSignal>>,
}

impl MainLoop {
    /// From now on SIGTERM and SIGINT end the loop instead of the process.
    pub fn new() -> Result<Self> {
        let mut manager =
            EventManager::<Subscriber>::new().map_err(|error| anyhow!("There is no event loop: {error}"))?;
        let stop = Arc::new(Mutex::new(StopSignal::new().context("Signals cannot be taken")?));
        manager.add_subscriber(stop.clone());
        Ok(Self { manager, stop })
    }

    /// Writes what `snapshot` returns, as JSON, to whoever connects.
    pub fn serve_stats<S: Serialize + 'static>(
        &mut self,
        listener: UnixListener,
        snapshot: impl Fn() -> S + 'static,
    ) -> Result<()> {
        let server = StatsServer::new(listener, move || serde_json::to_vec_pretty(&snapshot()))?;
        self.manager.add_subscriber(Arc::new(Mutex::new(server)));
        Ok(())
    }

    /// Returns after a signal.
    pub fn run(&mut self) -> Result<()> {
        while !self.stop.lock().unwrap_or_else(PoisonError::into_inner).seen {
            self.manager
                .run()
                .map_err(|error| anyhow!("The event loop failed: {error}"))?;
        }
        info!("Ending on a signal");
        Ok(())
    }
}

/// SIGTERM and SIGINT, as something to wait for.
struct StopSignal {
    pipe: UnixStream,
    seen: bool,
}

impl StopSignal {
    fn new() -> std::io::Result<Self> {
        let (pipe, notify) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, notify.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, notify)?;
        Ok(Self { pipe, seen: false })
    }
}

impl MutEventSubscriber for StopSignal {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let _ = self.pipe.read(&mut [0; 16]);
        self.seen = true;
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.pipe, EventSet::IN)) {
            warn!("Signals are not waited for: {error}");
        }
    }
}
