//! One thread per guest serves its socket; the main thread waits for signals and answers who asks for the counters.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;
use log::info;
use serde::Serialize;
use vhost::vhost_user::Listener;
use vhost_daemon::{GuestSocket, MainLoop, OwnSockets};
use vhost_ism::backend;
use vhost_ism::fabric::{Fabric, FabricStats};
use vhost_ism::guest::Guest;
use vhost_ism::stats::GuestSnapshot;
use vhost_user_backend::ShutdownHandle;

use crate::args::Args;

/// The VMM connection of each guest, if it has one.
type Connections = Arc<Vec<Mutex<Option<ShutdownHandle>>>>;

/// Runs until a signal ends it.
pub fn run(args: &Args) -> Result<()> {
    let fabric = Arc::new(Fabric::new(args.chid, args.limits()?));
    let mut main_loop = MainLoop::new()?;
    let mut own = OwnSockets::default();
    let sockets = sockets(args, &mut own)?;
    let guests: Vec<Arc<Guest>> = sockets
        .iter()
        .map(|socket| Arc::new(Guest::new(socket.name.clone(), fabric.clone())))
        .collect();
    if let Some(path) = &args.common.stats_socket {
        let (fabric, guests) = (fabric.clone(), guests.clone());
        main_loop.serve_stats(own.listen(path)?, move || Snapshot::new(&fabric, &guests))?;
    }

    let connections: Connections = Arc::new(guests.iter().map(|_| Mutex::default()).collect());
    info!("Serving {} guest(s), SMC fabric id {:#06x}", guests.len(), args.chid);
    for (index, (guest, socket)) in guests.into_iter().zip(sockets).enumerate() {
        let (connections, unsealed) = (connections.clone(), args.unsealed_memory());
        let mut listener = Listener::from(socket.listener);
        thread::Builder::new().name(socket.name).spawn(move || {
            backend::serve(&guest, &mut listener, unsealed, |handle| {
                *lock(&connections[index]) = handle;
            })
        })?;
    }

    main_loop.run()?;
    for connection in connections.iter() {
        if let Some(handle) = lock(connection).take() {
            handle.shutdown();
        }
    }
    Ok(())
}

fn sockets(args: &Args, own: &mut OwnSockets) -> Result<Vec<GuestSocket>> {
    let in_dir = args
        .socket_dir
        .iter()
        .flat_map(|dir| (0..args.guests.unwrap_or(0)).map(move |n| dir.join(format!("guest{n}.sock"))));
    let mut sockets = Vec::new();
    for path in args.common.socket_path.iter().cloned().chain(in_dir) {
        sockets.push(own.listen_for_guest(&path)?);
    }
    for &fd in &args.common.fd {
        sockets.push(vhost_daemon::inherited(fd)?);
    }
    Ok(sockets)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the stats socket shows.
#[derive(Serialize)]
struct Snapshot {
    chid: u16,
    fabric: FabricStats,
    guests: Vec<GuestSnapshot>,
}

impl Snapshot {
    fn new(fabric: &Fabric, guests: &[Arc<Guest>]) -> Self {
        Self {
            chid: fabric.chid(),
            fabric: fabric.stats(),
            guests: guests.iter().map(|guest| guest.stats().snapshot()).collect(),
        }
    }
}
