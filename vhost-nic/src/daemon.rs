//! The daemon: guests, the switch between them, and the document of the stats socket.

mod guest;

use std::sync::Arc;

use anyhow::{Context, Result};
use log::info;
use serde::Serialize;
use vhost_daemon::fault::{Faults, Plan};
use vhost_daemon::trace::{Events, start_flight_recorder};
use vhost_daemon::{CommonArgs, Control, FailOn, GuestSocket, MainLoop, OwnSockets, Program};
use vhost_nic::fault::NicFault;
use vhost_nic::hca::guest_error::GuestError;
use vhost_nic::hca::nic_event::NicEvent;
use vhost_nic::net::capture::{Capture, CaptureStats};
use vhost_nic::net::{Switch, SwitchStats};

use crate::args::{Args, GuestPlan, Socket};
use guest::{Guest, GuestSnapshot};

/// Identification in the documents of the stats socket.
const PROGRAM: Program = Program {
    name: env!("CARGO_BIN_NAME"),
    version: env!("CARGO_PKG_VERSION"),
};

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(args: &Args) -> Result<()> {
    let plans = args.guests()?;
    let mut fail_on = FailOn::<GuestError>::new(&args.common.fail_on)?;
    let mut main_loop = MainLoop::new()?;
    let mut own = OwnSockets::default();
    let mut sockets = Vec::new();
    for plan in &plans {
        sockets.push(socket(plan, &mut own)?);
    }
    let stats = args.common.stats_socket.as_deref().map(|path| own.listen(path));
    let stats = stats.transpose()?;
    let control = args.common.control_socket.as_deref().map(|path| own.listen(path));
    let control = control.transpose()?;
    if args.common.flight_recorder {
        start_flight_recorder();
    }

    let names: Vec<String> = sockets.iter().map(|socket| socket.name.clone()).collect();
    let faults = faults(args, &names)?;
    let switch = Switch::new();
    let mut guests = Vec::new();
    for ((plan, socket), vhca_id) in plans.iter().zip(&sockets).zip(0..) {
        guests.push(Guest::new(&socket.name, plan, vhca_id, args, &switch, faults.as_ref())?);
    }
    let capture = capture(args)?;
    if let Some(capture) = &capture {
        switch.set_tap(Some(capture.clone()));
    }
    for ((guest, plan), socket) in guests.iter_mut().zip(&plans).zip(sockets) {
        info!("{}: {} with MAC address {}", socket.name, plan.identity, plan.mac);
        guest.serve(plan.attach, socket.listener)?;
    }
    let guests = Arc::new(guests);
    if let Some(listener) = stats {
        let guests = guests.clone();
        main_loop.serve_stats(listener, PROGRAM, move || State {
            guests: guests.iter().map(Guest::snapshot).collect(),
            switch: switch.stats(),
            capture: capture.as_ref().map(|capture| capture.stats()),
        })?;
    }
    if let Some(listener) = control {
        let control = Control {
            program: PROGRAM,
            guests: names,
            events: NicEvent::EVENTS,
            flight_recorder: args.common.flight_recorder,
        };
        main_loop.serve_control(listener, control)?;
    }
    info!("serving {} guest(s)", guests.len());
    main_loop.run()?;
    for guest in guests.iter() {
        fail_on.add(guest.name(), |kind| guest.error_count(kind));
    }
    Ok(fail_on.verdict()?)
}

fn socket(plan: &GuestPlan, own: &mut OwnSockets) -> Result<GuestSocket> {
    Ok(match &plan.socket {
        Socket::Path(path) => own.listen_for_guest(path)?,
        Socket::Fd(fd) => vhost_daemon::inherited(*fd)?,
    })
}

/// Creates the set of faults, with the rules of `--faults`, for a daemon that can have any.
fn faults(args: &Args, guests: &[String]) -> Result<Option<Arc<Faults<NicFault>>>> {
    let CommonArgs {
        faults, control_socket, ..
    } = &args.common;
    if faults.is_none() && control_socket.is_none() {
        return Ok(None);
    }
    let set = Faults::new(guests.to_vec()).context("cannot start the thread of faults")?;
    if let Some(path) = faults {
        set.apply(Plan::read(path)?)?;
    }
    Ok(Some(set))
}

fn capture(args: &Args) -> Result<Option<Arc<Capture>>> {
    let Some(path) = &args.capture else { return Ok(None) };
    let capture = Capture::create(path, args.capture_limit)
        .with_context(|| format!("cannot create the capture file {}", path.display()))?;
    Ok(Some(Arc::new(capture)))
}

/// State in the document of the stats socket.
#[derive(Serialize)]
struct State {
    guests: Vec<GuestSnapshot>,
    switch: SwitchStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureStats>,
}
