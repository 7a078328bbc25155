//! QEMU's monitor protocol (docs/interop/qmp-spec.rst in the QEMU sources).
//!
//! Written by hand: the harness needs a handful of commands as untyped JSON, a trace of the traffic in the testbed's
//! logs, waits with a deadline and no async runtime, and a client crate with generated types would still leave these to
//! write.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::deadline::Deadline;
use crate::error::{Doing, Error, Result};
use crate::sync::{lock, wait_for};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A monitor connection to one QEMU process.
#[derive(Debug)]
pub struct Qmp {
    shared: Arc<Shared>,
    writer: Mutex<UnixStream>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    trace: Mutex<File>,
}

#[derive(Debug, Default)]
struct State {
    greeted: bool,
    closed: bool,
    next_id: u64,
    answers: Vec<(u64, Result<Value, String>)>,
    events: Vec<Value>,
}

/// A line received from QEMU.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Answer(u64, Result<Value, String>),
    Event(Value),
}

impl Message {
    fn parse(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if value.get("QMP").is_some() {
            return Ok(Self::Greeting);
        }
        if value.get("event").is_some() {
            return Ok(Self::Event(value));
        }
        let id = value.get("id").and_then(Value::as_u64);
        if let Some(error) = value.get("error") {
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or("?");
            let reason = format!("{} ({})", text("desc"), text("class"));
            // An error without an id answers a line that QEMU could not parse.
            return match id {
                Some(id) => Ok(Self::Answer(id, Err(reason))),
                None => Err(reason),
            };
        }
        match (id, value.get("return")) {
            (Some(id), Some(value)) => Ok(Self::Answer(id, Ok(value.clone()))),
            _ => Err("neither a greeting, nor an answer, nor an event".to_owned()),
        }
    }
}

impl Qmp {
    /// Negotiates with the QEMU at the other end of `stream`; all traffic is written to `trace`. `on_guest_reset` is
    /// called whenever the guest resets itself.
    pub(crate) fn new(stream: UnixStream, trace: &Path, on_guest_reset: impl Fn() + Send + 'static) -> Result<Self> {
        let trace = File::options()
            .create(true)
            .append(true)
            .open(trace)
            .doing(|| format!("open {}", trace.display()))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            trace: Mutex::new(trace),
        });
        let reader = stream.try_clone().doing(|| "clone a socket".to_owned())?;
        let listener = Arc::clone(&shared);
        thread::spawn(move || listener.read_all(reader, on_guest_reset));
        let qmp = Self {
            shared,
            writer: Mutex::new(stream),
        };
        let deadline = Deadline::after(ANSWER_TIMEOUT);
        qmp.wait("QEMU's greeting", deadline, |state| state.greeted.then_some(()))?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its result.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let id = {
            let mut state = lock(&self.shared.state);
            state.next_id += 1;
            state.next_id
        };
        let mut request = Map::new();
        request.insert("execute".into(), command.into());
        request.insert("id".into(), id.into());
        if arguments.as_object().is_none_or(|map| !map.is_empty()) {
            request.insert("arguments".into(), arguments);
        }
        let line = Value::Object(request).to_string();
        self.shared.record("->", &line);
        lock(&self.writer)
            .write_all(format!("{line}\n").as_bytes())
            .doing(|| format!("send {command} to QEMU"))?;
        let deadline = Deadline::after(ANSWER_TIMEOUT);
        let answer = self.wait(&format!("QEMU's answer to {command}"), deadline, |state| {
            let index = state.answers.iter().position(|(to, _)| *to == id)?;
            Some(state.answers.swap_remove(index).1)
        })?;
        answer.map_err(|reason| Error::Qmp {
            command: command.to_owned(),
            reason,
        })
    }

    /// Returns the number of events received so far; see [`Qmp::wait_event`].
    pub fn event_count(&self) -> usize {
        lock(&self.shared.state).events.len()
    }

    /// Waits for an event called `name`, ignoring the first `seen` events.
    pub fn wait_event(&self, name: &str, seen: usize, timeout: Duration) -> Result<Value> {
        let what = format!("QEMU's event {name}");
        self.wait(&what, Deadline::after(timeout), |state| {
            state
                .events
                .iter()
                .skip(seen)
                .find(|event| event.get("event").and_then(Value::as_str) == Some(name))
                .cloned()
        })
    }

    fn wait<R>(&self, what: &str, deadline: Deadline, mut look: impl FnMut(&mut State) -> Option<R>) -> Result<R> {
        let found = wait_for(&self.shared.state, &self.shared.changed, deadline, |state| {
            match look(state) {
                Some(found) => Some(Some(found)),
                None => state.closed.then_some(None),
            }
        });
        match found {
            Some(Some(found)) => Ok(found),
            Some(None) => Err(Error::Lost {
                what: format!("waiting for {what}"),
                why: "QEMU closed its monitor".to_owned(),
            }),
            None => Err(deadline.missed(what)),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        let _ = lock(&self.writer).shutdown(std::net::Shutdown::Both);
    }
}

impl Shared {
    fn read_all(&self, stream: UnixStream, on_guest_reset: impl Fn()) {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            self.record("<-", &line);
            let message = Message::parse(&line);
            if let Ok(Message::Event(event)) = &message
                && event["event"] == "RESET"
                && event["data"]["guest"] == true
            {
                on_guest_reset();
            }
            let mut state = lock(&self.state);
            match message {
                Ok(Message::Greeting) => state.greeted = true,
                Ok(Message::Answer(id, answer)) => state.answers.push((id, answer)),
                Ok(Message::Event(event)) => state.events.push(event),
                Err(reason) => self.record("!!", &reason),
            }
            self.changed.notify_all();
        }
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn record(&self, direction: &str, line: &str) {
        let _ = writeln!(lock(&self.trace), "{direction} {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(
            Message::parse(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#),
            Ok(Message::Greeting)
        );
        assert_eq!(
            Message::parse(r#"{"return": {"status": "running"}, "id": 3}"#),
            Ok(Message::Answer(3, Ok(json!({"status": "running"}))))
        );
        assert_eq!(
            Message::parse(
                r#"{"id": 4, "error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}"#
            ),
            Ok(Message::Answer(
                4,
                Err("The command x has not been found (CommandNotFound)".into())
            ))
        );
        assert!(matches!(
            Message::parse(
                r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESET", "data": {"guest": false}}"#
            ),
            Ok(Message::Event(_))
        ));
        assert!(Message::parse("{").is_err());
        assert!(Message::parse("{}").is_err());
        assert!(Message::parse(r#"{"error": {"class": "GenericError", "desc": "no"}}"#).is_err());
    }

    /// Plays QEMU's part: one answer per received line.
    fn fake(answers: Vec<&'static str>) -> (UnixStream, thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            writer.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            let mut lines = BufReader::new(theirs).lines();
            let mut seen = Vec::new();
            for answer in answers {
                seen.push(lines.next().unwrap().unwrap());
                writer.write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        (ours, server)
    }

    fn trace(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("guest-tests-qmp-{name}-{}", std::process::id()))
    }

    #[test]
    fn commands_get_their_answers_past_events() {
        let (stream, server) = fake(vec![
            "{\"return\": {}, \"id\": 1}\r\n",
            "{\"event\": \"STOP\"}\r\n{\"event\": \"RESUME\"}\r\n{\"return\": 42, \"id\": 2}\r\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}, \"id\": 3}\r\n",
        ]);
        let trace = trace("answers");
        let qmp = Qmp::new(stream, &trace, || ()).unwrap();
        assert_eq!(qmp.execute("x", json!({"a": 1})).unwrap(), json!(42));
        qmp.wait_event("STOP", 0, Duration::from_secs(5)).unwrap();
        assert!(qmp.wait_event("STOP", 2, Duration::from_millis(20)).is_err());
        let error = qmp.execute("device_del", json!({})).unwrap_err();
        assert!(error.to_string().contains("no such device"), "{error}");
        // The fake QEMU is gone now.
        let seen = server.join().unwrap();
        assert_eq!(seen[1], r#"{"arguments":{"a":1},"execute":"x","id":2}"#);
        assert_eq!(seen[2], r#"{"execute":"device_del","id":3}"#);
        assert!(qmp.execute("x", json!({})).is_err());
        assert!(std::fs::read_to_string(&trace).unwrap().contains("STOP"));
        std::fs::remove_file(trace).unwrap();
    }

    #[test]
    fn a_reset_by_the_guest_is_told() {
        let resets = |by_guest: bool| format!("{{\"event\": \"RESET\", \"data\": {{\"guest\": {by_guest}}}}}\r\n");
        let answers = format!("{}{}{{\"return\": {{}}, \"id\": 1}}\r\n", resets(false), resets(true));
        let (stream, server) = fake(vec![answers.leak()]);
        let trace = trace("resets");
        let (told, resets) = std::sync::mpsc::channel();
        let qmp = Qmp::new(stream, &trace, move || told.send(()).unwrap()).unwrap();
        server.join().unwrap();
        drop(qmp);
        assert_eq!(resets.iter().count(), 1);
        std::fs::remove_file(trace).unwrap();
    }
}
