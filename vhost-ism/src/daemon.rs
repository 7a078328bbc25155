//! One thread per guest serves its socket; the main thread waits for signals and answers who asks for the counters.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use log::{error, info, warn};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use vhost::vhost_user::Listener;
use vhost_ism::backend;
use vhost_ism::fabric::{Fabric, FabricStats};
use vhost_ism::guest::Guest;
use vhost_ism::stats::GuestSnapshot;
use vhost_user_backend::ShutdownHandle;
use vmm_sys_util::epoll::EventSet;

use crate::args::Args;
use crate::sockets::{self, OwnSockets};

/// How long a reader of the counters may keep the main thread.
const STATS_TIMEOUT: Duration = Duration::from_secs(1);

type Subscriber = Arc<Mutex<dyn MutEventSubscriber>>;

/// The VMM connection of each guest, if it has one.
type Connections = Arc<Vec<Mutex<Option<ShutdownHandle>>>>;

/// Runs until a signal ends it.
pub fn run(args: &Args) -> Result<()> {
    let fabric = Arc::new(Fabric::new(args.chid, args.limits()?));
    let mut manager = EventManager::<Subscriber>::new().map_err(|error| anyhow!("There is no event loop: {error}"))?;
    let stop = Arc::new(Mutex::new(StopSignal::new().context("Signals cannot be taken")?));
    manager.add_subscriber(stop.clone());

    let mut own = OwnSockets::default();
    let listeners = listeners(args, &mut own)?;
    let guests: Vec<Arc<Guest>> = listeners
        .iter()
        .map(|(name, _)| Arc::new(Guest::new(name.clone(), fabric.clone())))
        .collect();
    if let Some(path) = &args.stats_socket {
        let listener = own.listen(path)?;
        listener.set_nonblocking(true)?;
        let server = StatsServer {
            listener,
            fabric: fabric.clone(),
            guests: guests.clone(),
        };
        manager.add_subscriber(Arc::new(Mutex::new(server)));
    }

    let connections: Connections = Arc::new(guests.iter().map(|_| Mutex::default()).collect());
    info!("Serving {} guest(s), SMC fabric id {:#06x}", guests.len(), args.chid);
    for (index, (guest, (name, listener))) in guests.into_iter().zip(listeners).enumerate() {
        let connections = connections.clone();
        thread::Builder::new()
            .name(name)
            .spawn(move || serve(&guest, listener, &connections[index]))?;
    }

    while !lock(&stop).seen {
        manager
            .run()
            .map_err(|error| anyhow!("The event loop failed: {error}"))?;
    }
    info!("Ending on a signal");
    for connection in connections.iter() {
        if let Some(handle) = lock(connection).take() {
            handle.shutdown();
        }
    }
    Ok(())
}

fn listeners(args: &Args, own: &mut OwnSockets) -> Result<Vec<(String, UnixListener)>> {
    let in_dir = args
        .socket_dir
        .iter()
        .flat_map(|dir| (0..args.guests.unwrap_or(0)).map(move |n| dir.join(format!("guest{n}.sock"))));
    let mut listeners = Vec::new();
    for path in args.socket_path.iter().cloned().chain(in_dir) {
        let name = path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        listeners.push((name, own.listen(&path)?));
    }
    for &fd in &args.fd {
        listeners.push((format!("fd{fd}"), sockets::inherited(fd)?));
    }
    Ok(listeners)
}

fn serve(guest: &Arc<Guest>, listener: UnixListener, connection: &Mutex<Option<ShutdownHandle>>) {
    let mut listener = Listener::from(listener);
    if let Err(error) = backend::serve(guest, &mut listener, |handle| *lock(connection) = handle) {
        error!("{}: the socket is no longer served: {error}", guest.stats().guest());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What the stats socket shows.
#[derive(Serialize)]
struct Snapshot {
    chid: u16,
    fabric: FabricStats,
    guests: Vec<GuestSnapshot>,
}

/// Writes the counters to whoever connects.
struct StatsServer {
    listener: UnixListener,
    fabric: Arc<Fabric>,
    guests: Vec<Arc<Guest>>,
}

impl StatsServer {
    fn answer(&self, mut reader: UnixStream) -> Result<()> {
        let snapshot = Snapshot {
            chid: self.fabric.chid(),
            fabric: self.fabric.stats(),
            guests: self.guests.iter().map(|guest| guest.stats().snapshot()).collect(),
        };
        let mut text = serde_json::to_vec_pretty(&snapshot)?;
        text.push(b'\n');
        reader.set_write_timeout(Some(STATS_TIMEOUT))?;
        Ok(reader.write_all(&text)?)
    }
}

impl MutEventSubscriber for StatsServer {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let answered = match self.listener.accept() {
            Ok((reader, _)) => self.answer(reader),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = answered {
            warn!("The counters could not be told: {error}");
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let listener = Events::with_data(&self.listener, self.listener.as_raw_fd() as u32, EventSet::IN);
        if let Err(error) = ops.add(listener) {
            warn!("The stats socket is not served: {error}");
        }
    }
}
