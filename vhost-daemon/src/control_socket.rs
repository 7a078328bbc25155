//! The control socket: requests to a running daemon, a JSON object per line, and their answers.
//!
//! `{"version": 1, "command": "counters"}` is answered by `{"version": 1, "result": ...}`, or by
//! `{"version": 1, "error": "..."}` if it is refused. A command may continue its answer behind that line: a trace does
//! (see [`trace`](crate::trace)). A connection may make any number of requests, one after the other.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::info;
use serde_json::{Map, Value, json};

use crate::control_command::{Command, CommonCommand, answer_line};
use crate::controlled::{Answer, Controlled};
use crate::finding::{Record, Subscription};
use crate::socket_server::{MAX_CONNECTIONS, Serve};
use crate::trace::{Header, Session, flight_recorder_is_on, set_flight_recorder, write_stream};

/// Longest request in bytes, with its newline.
const MAX_REQUEST: usize = 1 << 16;
/// Time without a finding after which a client that follows them gets an empty line.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Longest trace.
const MAX_SECONDS: f64 = 86_400.0;

/// Answers the requests of every connection.
pub struct ControlService<D>(Weak<D>);

impl<D: Controlled> ControlService<D> {
    /// Creates the service of a daemon, for as long as that exists.
    pub fn new(daemon: &Arc<D>) -> Self {
        Self(Arc::downgrade(daemon))
    }
}

impl<D: Controlled> Serve for ControlService<D> {
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let mut input = BufReader::new(stream);
        let mut out = BufWriter::new(stream);
        while let Some(line) = read_request(&mut input)? {
            // Not kept from one request to the next: a daemon ends while clients are connected.
            let Some(daemon) = self.0.upgrade() else { break };
            let answer = line.and_then(|line| execute(&*daemon, &line));
            drop(daemon);
            let (line, body) = match answer {
                Ok(Answer::Value(value)) => (Ok(value), None),
                Ok(Answer::Stream(value, body)) => (Ok(value), Some(body)),
                Err(reason) => (Err(reason), None),
            };
            out.write_all(&answer_line(&line)?)?;
            if let Some(body) = body {
                // A reader may pause a stream for any time, as Wireshark does: what it omits is bounded, and counted.
                let timeout = stream.write_timeout()?;
                stream.set_write_timeout(None)?;
                body(&mut out)?;
                out.flush()?;
                stream.set_write_timeout(timeout)?;
            }
            out.flush()?;
        }
        Ok(())
    }

    fn refuse(&self, mut stream: &UnixStream) -> io::Result<()> {
        let reason = format!("{MAX_CONNECTIONS} connections are open already");
        stream.write_all(&answer_line(&Err(reason))?)
    }
}

/// Reads the line of the next request; `None` at the end. A line that is too long is an error, and skipped.
fn read_request(input: &mut impl BufRead) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    input.take(MAX_REQUEST as u64).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        return Ok(Some(Ok(line)));
    }
    if line.len() < MAX_REQUEST {
        return Ok(None);
    }
    input.skip_until(b'\n')?;
    Ok(Some(Err(format!("the request is longer than {MAX_REQUEST} bytes"))))
}

/// Executes a request. An error is the reason of the refusal.
fn execute<D: Controlled>(daemon: &D, line: &[u8]) -> Result<Answer, String> {
    match Command::<D::Command>::parse(line).map_err(|error| error.to_string())? {
        Command::Common(command) => execute_common(daemon, command),
        Command::Own(command) => daemon.execute(command),
    }
}

fn execute_common<D: Controlled>(daemon: &D, command: CommonCommand) -> Result<Answer, String> {
    match command {
        CommonCommand::Counters {} => {
            let document = daemon.program().document(daemon.state());
            let value = serde_json::to_value(&document).map_err(|error| error.to_string())?;
            Ok(Answer::Value(value))
        }
        CommonCommand::Objects { guest, kind } => objects(daemon, guest.as_deref(), kind.as_deref()).map(Answer::Value),
        CommonCommand::Faults { plan } => daemon.faults(plan).map(Answer::Value),
        CommonCommand::Findings { guest, follow } => findings(daemon, guest, follow),
        CommonCommand::FlightRecorder { on } => {
            set_flight_recorder(on);
            info!("the flight recorder is {}", if on { "on" } else { "off" });
            Ok(Answer::done())
        }
        CommonCommand::Trace { seconds, .. } if !(0.0..=MAX_SECONDS).contains(&seconds) => {
            Err(format!("a trace takes from 0 to {MAX_SECONDS} seconds"))
        }
        CommonCommand::Trace { recent: true, .. } if !flight_recorder_is_on() => {
            Err("the flight recorder is off".to_owned())
        }
        CommonCommand::Trace { seconds, recent } => {
            let session = Session::start(recent);
            let header = Header::new(daemon.program(), &daemon.guests(), daemon.events());
            let value = serde_json::to_value(header).map_err(|error| error.to_string())?;
            let body = move |mut out: &mut dyn Write| write_stream(&mut out, session, Duration::from_secs_f64(seconds));
            Ok(Answer::Stream(value, Box::new(body)))
        }
    }
}

/// Returns the live objects of all guests or of one, of all kinds or of one.
fn objects<D: Controlled>(daemon: &D, guest: Option<&str>, kind: Option<&str>) -> Result<Value, String> {
    let mut guests = daemon.guests();
    if let Some(name) = guest {
        guests.retain(|guest| guest == name);
        if guests.is_empty() {
            return Err(format!("there is no guest {name:?}"));
        }
    }
    let mut trees = Map::new();
    for guest in guests {
        let mut kinds = daemon.objects(&guest);
        if let Some(kind) = kind {
            if !kinds.contains_key(kind) {
                let known: Vec<&str> = kinds.keys().map(String::as_str).collect();
                return Err(format!("there are no objects {kind:?}, only {}", known.join(", ")));
            }
            kinds.retain(|name, _| name == kind);
        }
        trees.insert(guest, Value::Object(kinds));
    }
    Ok(Value::Object(trees))
}

/// Returns the findings of all guests or of one, and with `follow` those that happen from then on.
fn findings<D: Controlled>(daemon: &D, guest: Option<String>, follow: bool) -> Result<Answer, String> {
    if let Some(name) = guest.as_ref().filter(|name| !daemon.guests().contains(name)) {
        return Err(format!("there is no guest {name:?}"));
    }
    let is_wanted = move |record: &Arc<Record>| guest.as_deref().is_none_or(|guest| guest == &*record.guest);
    let (sources, subscription) = (daemon.findings(), Subscription::default());
    if follow {
        sources.iter().for_each(|source| source.subscribe(&subscription));
    }
    let mut recent: Vec<_> = sources.iter().flat_map(|source| source.recent()).collect();
    recent.retain(&is_wanted);
    recent.sort_by_key(|record| record.time_unix_ns);
    let value = serde_json::to_value(&recent).map_err(|error| error.to_string())?;
    if !follow {
        return Ok(Answer::Value(value));
    }
    // What happened between subscription and snapshot is in both.
    let is_new = move |record: &Arc<Record>| !recent.iter().any(|known| Arc::ptr_eq(known, record));
    let body = move |out: &mut dyn Write| {
        loop {
            let (mut records, dropped) = subscription.take(KEEP_ALIVE);
            records.retain(|record| is_wanted(record) && is_new(record));
            for record in &records {
                serde_json::to_writer(&mut *out, record)?;
                out.write_all(b"\n")?;
            }
            if dropped > 0 {
                writeln!(out, "{}", json!({ "dropped": dropped }))?;
            } else if records.is_empty() {
                // Fails if the client is gone.
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
    };
    Ok(Answer::Stream(value, Box::new(body)))
}

#[cfg(test)]
mod tests;
