//! The daemon: guests, the switch between them, and the document of the stats socket.

mod external_ports;
mod guest;
mod metrics;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use log::info;
use serde::Serialize;
use serde_json::{Map, Value, json};
use vhost_daemon::fault::Faults;
use vhost_daemon::finding::Source;
use vhost_daemon::record::Turns;
use vhost_daemon::trace::{EventInfo, Events};
use vhost_daemon::{
    Answer, Controlled, FailOn, GuestSocket, MainLoop, Metrics, Output, OwnSockets, Program, TraceSource,
    await_dump_signal, log_by_thread, stop_all,
};
use vhost_nic::external_port::{ExternalPort, ExternalPortStats};
use vhost_nic::fault::NicFault;
use vhost_nic::firmware;
use vhost_nic::hca::nic_event::{self, NicEvent};
use vhost_nic::hca::nic_finding::CATALOGUES;
use vhost_nic::hca::port::SPEEDS;
use vhost_nic::net::capture::{Capture, CaptureOptions, CaptureStats, capture_for};
use vhost_nic::net::{Switch, SwitchStats};
use vhost_nic::timeline::NicTimeline;

use crate::args::{Args, GuestPlan, Socket};
use crate::control_command::NicCommand;
use external_ports::OpenPort;
use guest::{DoorPlan, Guest, GuestSnapshot, open_record};

/// Identification in the documents of the stats socket.
pub const PROGRAM: Program = Program {
    name: env!("CARGO_BIN_NAME"),
    version: env!("CARGO_PKG_VERSION"),
};

/// Maximum size of a capture in a file.
const FILE_LIMIT: u64 = 1 << 30;

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(args: &Args) -> Result<()> {
    let mut fail_on = FailOn::new(&args.common.fail_on, &CATALOGUES)?;
    firmware::Capabilities::check_names(&args.zero_capability)?;
    let mut main_loop = MainLoop::new()?;
    let dump_signal = await_dump_signal(&args.common)?;
    let mut own = OwnSockets::new(args.common.socket_access());
    let plans = args.guests(&args.common.take_passed_sockets(&mut own)?)?;
    let mut sockets = Vec::new();
    for plan in &plans {
        sockets.push(socket(plan, &mut own)?);
    }
    let stats = args.common.stats_socket.as_deref().map(|path| own.listen(path));
    let stats = stats.transpose()?;
    let metrics = args.common.metrics_socket.as_deref().map(|path| own.listen(path));
    let metrics = metrics.transpose()?;
    let control = args
        .common
        .control_socket
        .as_deref()
        .map(|path| own.listen_privately(path));
    let control = control.transpose()?;
    let names: Vec<String> = sockets.iter().map(|socket| socket.name.clone()).collect();
    let traces = TraceSource {
        program: PROGRAM,
        guests: &names,
        events: NicEvent::EVENTS,
        findings: &CATALOGUES,
        named: &[nic_event::ERROR_CQE],
        timeline: NicTimeline::new,
    };
    let records = plans.iter().map(open_record).collect::<Result<Vec<_>>>()?;
    let ports = external_ports::open(&args.port, &names, &mut own)?;
    let all_ports: Vec<&str> = ports
        .iter()
        .map(OpenPort::name)
        .chain(names.iter().map(String::as_str))
        .collect();
    let output = args.capture.as_deref().map(|path| open_capture(args, path, &all_ports));
    let output = output.transpose()?;
    args.common.enter_sandbox(&own)?;
    log_by_thread().context("cannot start the thread of the log")?;
    // Ends after the guests, whose last findings it writes.
    let _dumper = traces.start(&args.common, dump_signal)?;
    let turns = plans
        .iter()
        .any(|plan| plan.record.is_some() || args.common.recordable.is_some())
        .then(Arc::<Turns>::default);
    let faults = Faults::of_daemon(&args.common, names.clone())?;
    let switch = Switch::new();
    let sharing = ports.iter().filter(|port| port.shares_memory()).count();
    let max_memory = args.common.guest_memory_limit(plans.len() + sharing);
    let mut guests = Vec::new();
    for (((plan, socket), record), vhca_id) in plans.iter().zip(&sockets).zip(records).zip(0..) {
        let doors = DoorPlan {
            faults: faults.as_ref(),
            turns: turns.as_ref(),
            record,
        };
        let guest = Guest::new(&socket.name, plan, vhca_id, args, &switch, doors, max_memory)?;
        guests.push(guest);
    }
    let ports = ports.into_iter().map(|port| port.start(&switch, max_memory));
    let ports = ports.collect::<Result<Vec<_>>>()?;
    let capture = output.map(|output| capture(args, output, &switch)).transpose()?;
    let capture = capture.map(Arc::new);
    for ((guest, plan), socket) in guests.iter_mut().zip(&plans).zip(sockets) {
        info!("{}: {} with MAC address {}", socket.name, plan.identity, plan.mac);
        guest.serve(plan.attach, socket.listener)?;
    }
    let daemon = Arc::new(Daemon {
        guests,
        ports,
        switch,
        capture,
        faults,
    });
    if let Some(listener) = stats {
        main_loop.serve_stats(listener, &daemon)?;
    }
    if let Some(listener) = metrics {
        main_loop.serve_metrics(listener, &daemon)?;
    }
    if let Some(listener) = control {
        main_loop.serve_control(listener, &daemon)?;
    }
    info!("serving {} guest(s)", daemon.guests.len());
    let ended = main_loop.run();
    daemon.guests.iter().for_each(Guest::end_record);
    ended?;
    for guest in &daemon.guests {
        for findings in guest.findings() {
            fail_on.add(guest.name(), &*findings);
        }
    }
    Ok(fail_on.verdict()?)
}

fn socket(plan: &GuestPlan, own: &mut OwnSockets) -> Result<GuestSocket> {
    Ok(match &plan.socket {
        Socket::Path(path) => own.listen_for_guest(path)?,
        Socket::Fd(fd) => vhost_daemon::inherited(*fd)?,
    })
}

/// Opens the output of --capture.
fn open_capture(args: &Args, path: &Path, ports: &[&str]) -> Result<Output> {
    if let Some(port) = &args.capture_port
        && !ports.contains(&port.as_str())
    {
        bail!("--capture-port: there is no port {port}");
    }
    Output::open(path).with_context(|| format!("cannot write the capture to {}", path.display()))
}

/// Starts the capture of --capture.
fn capture(args: &Args, output: Output, switch: &Arc<Switch>) -> Result<Capture> {
    let options = CaptureOptions {
        port: args.capture_port.clone(),
        commands: args.capture_commands,
        limit: args.capture_limit.or(output.is_regular.then_some(FILE_LIMIT)),
        ..CaptureOptions::default()
    };
    Capture::start(switch, output.file, &options).context("cannot start the capture")
}

/// Whether the switch has a port of this name, of a guest or another.
fn has_port(switch: &Switch, name: &str) -> bool {
    switch.stats().ports.iter().any(|port| port.name == name)
}

/// The guests of a daemon and the switch between them.
struct Daemon {
    guests: Vec<Guest>,
    ports: Vec<ExternalPort>,
    switch: Arc<Switch>,
    capture: Option<Arc<Capture>>,
    faults: Option<Arc<Faults<NicFault>>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        stop_all(self.guests.iter_mut().filter_map(Guest::server));
    }
}

impl Daemon {
    /// Returns the guest of a name.
    fn guest(&self, name: &str) -> Result<&Guest, String> {
        let guest = self.guests.iter().find(|guest| guest.name() == name);
        guest.ok_or_else(|| format!("there is no guest {name:?}"))
    }

    /// Checks that the switch has a port of a name.
    fn port<'a>(&self, name: &'a str) -> Result<&'a str, String> {
        match has_port(&self.switch, name) {
            true => Ok(name),
            false => Err(format!("there is no guest or port {name:?}")),
        }
    }
}

impl Controlled for Daemon {
    type Command = NicCommand;
    type State = State;

    fn program(&self) -> Program {
        PROGRAM
    }

    fn guests(&self) -> Vec<String> {
        self.guests.iter().map(|guest| guest.name().to_owned()).collect()
    }

    fn events(&self) -> &'static [EventInfo] {
        NicEvent::EVENTS
    }

    fn state(&self) -> State {
        State {
            guests: self.guests.iter().map(Guest::snapshot).collect(),
            switch: self.switch.stats(),
            ports: self.ports.iter().map(ExternalPort::stats).collect(),
            capture: self.capture.as_ref().map(|capture| capture.stats()),
        }
    }

    fn metrics(&self, metrics: &mut Metrics) {
        let guests: Vec<GuestSnapshot> = self.guests.iter().map(Guest::summary).collect();
        metrics::collect(metrics, &guests, &self.switch.stats());
    }

    fn objects(&self, guest: &str) -> Map<String, Value> {
        self.guest(guest).map(Guest::objects).unwrap_or_default()
    }

    fn faults(&self, plan: Option<Value>) -> Result<Value, String> {
        let faults = self.faults.as_ref().ok_or("the daemon runs without faults")?;
        faults.control(plan, || self.guests.iter().for_each(Guest::act_now))
    }

    fn findings(&self) -> Vec<Arc<dyn Source>> {
        self.guests.iter().flat_map(Guest::findings).collect()
    }

    fn execute(&self, command: NicCommand) -> Result<Answer, String> {
        match command {
            NicCommand::Cable { guest, plugged } => {
                self.switch.set_cable(self.port(&guest)?, plugged);
                info!("{guest}: the cable is {}", if plugged { "in" } else { "out" });
                Ok(Answer::done())
            }
            NicCommand::Speed { guest, gbps } => {
                if !self.guest(&guest)?.set_partner_speed(gbps) {
                    let speeds = SPEEDS.map(|(gbps, _)| gbps.to_string()).join(", ");
                    return Err(format!("the speeds of the NIC are {speeds} Gb/s"));
                }
                match gbps {
                    Some(gbps) => info!("{guest}: the other end of the cable has {gbps} Gb/s"),
                    None => info!("{guest}: the other end of the cable has all speeds"),
                }
                Ok(Answer::done())
            }
            NicCommand::MacTable {} => {
                let table = serde_json::to_value(self.switch.mac_table()).map_err(|error| error.to_string())?;
                Ok(Answer::Value(table))
            }
            NicCommand::Flr { guest } => {
                self.guest(&guest)?.reset();
                info!("{guest}: reset by the operator");
                Ok(Answer::done())
            }
            NicCommand::Record { guest, file } => {
                let begun = self.guest(&guest)?.begin_record(&file);
                let begun = begun.map_err(|error| format!("{error:#}"))?;
                Ok(Answer::Value(json!({ "begun": begun })))
            }
            NicCommand::RecordEnd { guest } => match self.guest(&guest)?.end_recording() {
                true => Ok(Answer::done()),
                false => Err("the guest is not recorded".to_owned()),
            },
            NicCommand::Capture {
                port,
                commands,
                seconds,
            } => {
                if let Some(port) = &port {
                    self.port(port)?;
                }
                let duration = seconds.map(Duration::try_from_secs_f64).transpose();
                let duration = duration.map_err(|error| format!("a capture cannot take this time: {error}"))?;
                let options = CaptureOptions {
                    port,
                    commands,
                    ..CaptureOptions::default()
                };
                let switch = self.switch.clone();
                let body = move |out: &mut dyn Write| {
                    capture_for(&switch, out, &options, duration);
                    Ok(())
                };
                Ok(Answer::Stream(json!({ "format": "pcapng" }), Box::new(body)))
            }
        }
    }
}

/// State in the document of the stats socket.
#[derive(Serialize)]
struct State {
    guests: Vec<GuestSnapshot>,
    switch: SwitchStats,
    ports: Vec<ExternalPortStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureStats>,
}
