//! The daemon: a fabric, a server thread per guest, and a main thread for signals and the stats socket.

mod metrics;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use log::info;
use serde::Serialize;
use serde_json::{Map, Value, json};
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::finding::{Kind, Source};
use vhost_daemon::record::{Begun, OrderError};
use vhost_daemon::trace::{EventInfo, Events, Tracer};
use vhost_daemon::{
    Answer, Controlled, FailOn, GuestSocket, MainLoop, Metrics, Output, OwnSockets, Program, Server, TraceSource,
    await_dump_signal, log_by_thread,
};
use vhost_ism::backend;
use vhost_ism::connection::FrontendDoor;
use vhost_ism::fabric::{Fabric, FabricStats};
use vhost_ism::fault::{FaultDoor, IsmFault};
use vhost_ism::guest::Guest;
use vhost_ism::ism_event::{IsmEvent, IsmTimeline};
use vhost_ism::ism_finding::Finding;
use vhost_ism::record::{Order, Recorder, Setup};

use crate::args::Args;
use crate::control_command::IsmCommand;

/// Identification in the documents of the stats socket.
pub const PROGRAM: Program = Program {
    name: env!("CARGO_BIN_NAME"),
    version: env!("CARGO_PKG_VERSION"),
};

/// Runs until a signal.
pub fn run(args: &Args) -> Result<()> {
    let limits = args.limits()?;
    let mut fail_on = FailOn::new(&args.common.fail_on, &[Finding::INFOS])?;
    let mut main_loop = MainLoop::new()?;
    let dump_signal = await_dump_signal(&args.common)?;
    let mut own = OwnSockets::new(args.common.socket_access());
    let sockets = sockets(args, &mut own)?;
    let names: Vec<String> = sockets.iter().map(|socket| socket.name.clone()).collect();
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
    let recorder = recorder(args, || Setup::new(args.chid, &limits, names.clone()))?;
    args.common.enter_sandbox(&own)?;
    log_by_thread().context("cannot start the thread of the log")?;
    let (fabric, guests) = match &recorder {
        None => guests(Fabric::new(args.chid, limits), &names),
        Some(recorder) => recorder.create(|tape| guests(Fabric::with_tape(args.chid, limits, tape), &names)),
    };
    let traces = TraceSource {
        program: PROGRAM,
        guests: &names,
        events: IsmEvent::EVENTS,
        findings: &[Finding::INFOS],
        named: &[],
        timeline: IsmTimeline::new,
    };
    let _dumper = traces.start(&args.common, dump_signal)?;
    let faults = Faults::of_daemon(&args.common, names)?;
    let doors = faults
        .iter()
        .flat_map(|faults| doors(&guests, faults, recorder.as_ref()))
        .collect();

    info!("serving {} guest(s), SMC fabric id {:#06x}", guests.len(), args.chid);
    let max_memory = args.common.guest_memory_limit(guests.len());
    let servers = guests.iter().zip(sockets).map(|(guest, socket)| {
        let door = recorder
            .clone()
            .map(|recorder| -> Arc<dyn FrontendDoor> { Arc::new(recorder) });
        backend::start_with_door(guest.clone(), socket.listener, max_memory, door)
            .with_context(|| format!("cannot serve guest {}", socket.name))
    });
    let servers = servers.collect::<Result<_>>()?;
    let daemon = Arc::new(Daemon {
        fabric,
        guests,
        servers,
        faults,
        doors,
        recorder,
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

    let ended = main_loop.run();
    if let Some(recorder) = &daemon.recorder {
        recorder.finish();
    }
    ended?;
    for guest in &daemon.guests {
        fail_on.add(guest.stats().guest(), &**guest.stats().findings());
    }
    // Not joined: a worker may be waiting for a VMM that never answers.
    if let Some(daemon) = Arc::into_inner(daemon) {
        daemon.servers.into_iter().for_each(Server::detach);
    }
    Ok(fail_on.verdict()?)
}

/// Creates the guests of a fabric.
fn guests(fabric: Fabric, names: &[String]) -> (Arc<Fabric>, Vec<Arc<Guest>>) {
    let fabric = Arc::new(fabric);
    let guest = |(name, number): (&String, u16)| Guest::new(name.clone(), Tracer::new(number), fabric.clone());
    let guests = names.iter().zip(0..).map(guest).map(Arc::new).collect();
    (fabric, guests)
}

/// Returns the recorder of --record and --recordable; opens the record of the former.
fn recorder(args: &Args, setup: impl FnOnce() -> Setup) -> Result<Option<Recorder>> {
    let Some(path) = &args.record else {
        let is_recordable = args.common.recordable.is_some();
        return Ok(is_recordable.then(|| Recorder::on_demand(&setup())));
    };
    let open = || -> Result<Recorder> { Ok(Recorder::to_file(Output::open_file(path)?, &setup())?) };
    let recorder = open().with_context(|| format!("cannot write the record to {}", path.display()))?;
    Ok(Some(recorder))
}

/// Puts a door before every guest, at which the faults strike.
fn doors(guests: &[Arc<Guest>], faults: &Arc<Faults<IsmFault>>, recorder: Option<&Recorder>) -> Vec<Arc<FaultDoor>> {
    let door = |(guest, number): (&Arc<Guest>, u16)| {
        let faults = GuestFaults::new(faults, guest.stats().guest());
        let faults = match recorder {
            None => faults,
            Some(recorder) => faults.with_tape(recorder.of_faults(number)),
        };
        FaultDoor::new(faults, Tracer::new(number)).install(guest)
    };
    guests.iter().zip(0..).map(door).collect()
}

fn sockets(args: &Args, own: &mut OwnSockets) -> Result<Vec<GuestSocket>> {
    let mut sockets = Vec::new();
    let passed = args.common.take_passed_sockets(own)?;
    let named = args.common.socket_path.iter().cloned();
    for path in named.chain(args.sockets_in_directory()).chain(passed) {
        sockets.push(own.listen_for_guest(&path)?);
    }
    for &fd in &args.common.fd {
        sockets.push(vhost_daemon::inherited(fd)?);
    }
    Ok(sockets)
}

/// The guests of a daemon and their fabric.
struct Daemon {
    fabric: Arc<Fabric>,
    guests: Vec<Arc<Guest>>,
    /// By number of the guest.
    servers: Vec<Server>,
    faults: Option<Arc<Faults<IsmFault>>>,
    doors: Vec<Arc<FaultDoor>>,
    recorder: Option<Recorder>,
}

impl Daemon {
    /// Returns the number of a guest by its name.
    fn number(&self, name: &str) -> Result<usize, String> {
        let number = self.guests.iter().position(|guest| guest.stats().guest() == name);
        number.ok_or_else(|| format!("there is no guest {name:?}"))
    }

    /// Begins a record in a file. Returns whether it has begun; otherwise it will when the last VMM is gone.
    fn begin_record(&self, path: &Path) -> Result<bool> {
        let recorder = self.recorder.as_ref().ok_or(OrderError::NotRecordable)?;
        let order = || -> Result<Order> {
            Ok(Order {
                file: Output::open_file(path).context("cannot write the record")?,
                guests: self.guests.clone(),
            })
        };
        Ok(recorder.begin(order)? == Begun::Now)
    }
}

impl Controlled for Daemon {
    type Command = IsmCommand;
    type State = State;

    fn program(&self) -> Program {
        PROGRAM
    }

    fn guests(&self) -> Vec<String> {
        self.guests
            .iter()
            .map(|guest| guest.stats().guest().to_owned())
            .collect()
    }

    fn events(&self) -> &'static [EventInfo] {
        IsmEvent::EVENTS
    }

    fn state(&self) -> State {
        State {
            chid: self.fabric.chid(),
            fabric: self.fabric.stats(),
            guests: self.guests.clone(),
            objects: self.fabric.clone(),
        }
    }

    fn metrics(&self, metrics: &mut Metrics) {
        metrics::collect(metrics, &self.fabric.stats(), &self.guests);
    }

    fn objects(&self, guest: &str) -> Map<String, Value> {
        let Ok(number) = self.number(guest) else {
            return Map::new();
        };
        let gid = self.guests[number].config().dmb_gid.to_string();
        let Ok(Value::Object(mut kinds)) = serde_json::to_value(&*self.fabric) else {
            return Map::new();
        };
        for objects in kinds.values_mut().filter_map(Value::as_array_mut) {
            objects.retain(|object| mentions(object, &gid));
        }
        kinds
    }

    fn faults(&self, plan: Option<Value>) -> Result<Value, String> {
        let faults = self.faults.as_ref().ok_or("the daemon runs without faults")?;
        faults.control(plan, || self.doors.iter().for_each(|door| door.now()))
    }

    fn findings(&self) -> Vec<Arc<dyn Source>> {
        let findings = |guest: &Arc<Guest>| -> Arc<dyn Source> { guest.stats().findings().clone() };
        self.guests.iter().map(findings).collect()
    }

    fn execute(&self, command: IsmCommand) -> Result<Answer, String> {
        match command {
            IsmCommand::Disconnect { guest } => {
                if !self.servers[self.number(&guest)?].disconnect() {
                    return Err(format!("no VMM is connected to guest {guest:?}"));
                }
                info!("{guest}: disconnected by the operator");
                Ok(Answer::done())
            }
            IsmCommand::Reset { guest } => {
                if !self.guests[self.number(&guest)?].reset() {
                    return Err(format!("the driver of guest {guest:?} has no session"));
                }
                info!("{guest}: reset by the operator");
                Ok(Answer::done())
            }
            IsmCommand::Record { file } => {
                let begun = self.begin_record(&file).map_err(|error| format!("{error:#}"))?;
                Ok(Answer::Value(json!({ "begun": begun })))
            }
            IsmCommand::RecordEnd {} => match self.recorder.as_ref().is_some_and(Recorder::end) {
                true => Ok(Answer::done()),
                false => Err("there is no record".to_owned()),
            },
        }
    }
}

/// Whether a text is a value, or a part of it.
fn mentions(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Array(values) => values.iter().any(|value| mentions(value, text)),
        Value::Object(fields) => fields.values().any(|value| mentions(value, text)),
        _ => false,
    }
}

/// State in the document of the stats socket.
#[derive(Serialize)]
struct State {
    chid: u16,
    fabric: FabricStats,
    guests: Vec<Arc<Guest>>,
    objects: Arc<Fabric>,
}
