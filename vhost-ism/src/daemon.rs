//! The daemon: a fabric, a server thread per guest, and a main thread for signals and the stats socket.

use std::sync::Arc;

use anyhow::{Context, Result};
use log::info;
use serde::Serialize;
use vhost_daemon::trace::{Events, Tracer, start_flight_recorder};
use vhost_daemon::{Control, FailOn, GuestSocket, MainLoop, OwnSockets, Program, Server};
use vhost_ism::backend;
use vhost_ism::fabric::{Fabric, FabricStats};
use vhost_ism::guest::Guest;
use vhost_ism::ism_event::IsmEvent;
use vhost_ism::stats::{GuestError, GuestStats};

use crate::args::Args;

/// Identification in the documents of the stats socket.
const PROGRAM: Program = Program {
    name: env!("CARGO_BIN_NAME"),
    version: env!("CARGO_PKG_VERSION"),
};

/// Runs until a signal.
pub fn run(args: &Args) -> Result<()> {
    let fabric = Arc::new(Fabric::new(args.chid, args.limits()?));
    let mut fail_on = FailOn::<GuestError>::new(&args.common.fail_on)?;
    let mut main_loop = MainLoop::new()?;
    let mut own = OwnSockets::default();
    let sockets = sockets(args, &mut own)?;
    let guests: Vec<Arc<Guest>> = sockets
        .iter()
        .zip(0..)
        .map(|(socket, number)| Arc::new(Guest::new(socket.name.clone(), Tracer::new(number), fabric.clone())))
        .collect();
    if let Some(path) = &args.common.stats_socket {
        let (fabric, guests) = (fabric.clone(), guests.clone());
        main_loop.serve_stats(own.listen(path)?, PROGRAM, move || State::new(&fabric, &guests))?;
    }
    if let Some(path) = &args.common.control_socket {
        let control = Control {
            program: PROGRAM,
            guests: sockets.iter().map(|socket| socket.name.clone()).collect(),
            events: IsmEvent::EVENTS,
            flight_recorder: args.common.flight_recorder,
        };
        main_loop.serve_control(own.listen(path)?, control)?;
    }
    if args.common.flight_recorder {
        start_flight_recorder();
    }

    info!("serving {} guest(s), SMC fabric id {:#06x}", guests.len(), args.chid);
    let stats: Vec<Arc<GuestStats>> = guests.iter().map(|guest| guest.stats().clone()).collect();
    let servers = guests.into_iter().zip(sockets).map(|(guest, socket)| {
        backend::start(guest, socket.listener, args.unsealed_memory())
            .with_context(|| format!("cannot serve guest {}", socket.name))
    });
    let servers: Vec<Server> = servers.collect::<Result<_>>()?;

    main_loop.run()?;
    // Not joined: a worker may be waiting for a VMM that never answers.
    servers.into_iter().for_each(Server::detach);
    for guest in stats {
        fail_on.add(guest.guest(), |kind| guest.error_count(kind));
    }
    Ok(fail_on.verdict()?)
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

/// State in the document of the stats socket.
#[derive(Serialize)]
struct State {
    chid: u16,
    fabric: FabricStats,
    guests: Vec<Arc<Guest>>,
    objects: Arc<Fabric>,
}

impl State {
    fn new(fabric: &Arc<Fabric>, guests: &[Arc<Guest>]) -> Self {
        Self {
            chid: fabric.chid(),
            fabric: fabric.stats(),
            guests: guests.to_vec(),
            objects: fabric.clone(),
        }
    }
}
