use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use clap::Subcommand;
use event_manager::{EventManager, SubscriberOps};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;
use crate::control_client::{Client, ClientError};
use crate::finding::Source;
use crate::metrics::Metrics;
use crate::program::Program;
use crate::socket_server::SocketServer;
use crate::stats_socket::StatsService;
use crate::trace::EventInfo;

#[derive(Subcommand, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Own {
    Add { a: u32, b: u32 },
    Follow {},
    Flood {},
}

/// More than fits between a daemon and a reader.
fn flood() -> Vec<u8> {
    (0..8 << 20).map(|index: u32| (index % 251) as u8).collect()
}

#[derive(Default)]
struct Daemon {
    asked: AtomicU64,
}

#[derive(Serialize)]
struct State {
    asked: u64,
}

impl Controlled for Daemon {
    type Command = Own;
    type State = State;

    fn program(&self) -> Program {
        Program {
            name: "vhost-test",
            version: "1",
        }
    }

    fn guests(&self) -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    fn events(&self) -> &'static [EventInfo] {
        &[]
    }

    fn state(&self) -> State {
        State {
            asked: self.asked.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    fn findings(&self) -> Vec<Arc<dyn Source>> {
        Vec::new()
    }

    fn faults(&self, plan: Option<Value>) -> Result<Value, String> {
        Ok(json!({ "plan": plan }))
    }

    fn metrics(&self, metrics: &mut Metrics) {
        metrics.counter(
            "asked",
            "Requests for the state",
            [(Vec::new(), self.asked.load(Ordering::Relaxed))],
        );
    }

    fn objects(&self, guest: &str) -> Map<String, Value> {
        Map::from_iter([("cqs".to_owned(), json!({ "7": guest })), ("eqs".to_owned(), json!({}))])
    }

    fn execute(&self, command: Own) -> Result<Answer, String> {
        match command {
            Own::Add { a, b } => {
                let sum = a.checked_add(b).ok_or("the sum is too large")?;
                Ok(Answer::Value(json!(sum)))
            }
            Own::Flood {} => Ok(Answer::Stream(json!("head"), Box::new(|out| out.write_all(&flood())))),
            Own::Follow {} => Ok(Answer::Stream(json!("head"), Box::new(|out| out.write_all(b"body\n")))),
        }
    }
}

/// A daemon with a control and a stats socket in a directory.
struct Host {
    directory: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    loop_thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bind = |name: &str| std::os::unix::net::UnixListener::bind(directory.path().join(name)).unwrap();
        let (control, stats) = (bind("control"), bind("stats"));
        let stop = Arc::<AtomicBool>::default();
        let seen = stop.clone();
        let run = move || {
            let daemon = Arc::<Daemon>::default();
            let mut manager = EventManager::<Box<dyn event_manager::MutEventSubscriber>>::new().unwrap();
            let control = SocketServer::new("control", control, ControlService::new(&daemon)).unwrap();
            manager.add_subscriber(Box::new(control));
            let stats = SocketServer::new("stats", stats, StatsService::new(&daemon)).unwrap();
            manager.add_subscriber(Box::new(stats));
            while !seen.load(Ordering::Relaxed) {
                manager.run().unwrap();
            }
        };
        Self {
            directory,
            stop,
            loop_thread: Some(thread::spawn(run)),
        }
    }

    fn connect(&self, name: &str) -> UnixStream {
        UnixStream::connect(self.directory.path().join(name)).unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.directory.path().join("control")).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.connect("stats");
        self.loop_thread.take().unwrap().join().unwrap();
    }
}

/// Makes a request that is any bytes, and returns the line of the answer.
fn ask(stream: &UnixStream, request: &[u8]) -> String {
    let mut out = stream;
    out.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn commands_of_all_daemons_and_of_this_one_are_executed() {
    let host = Host::start();
    let mut client = host.client();
    assert_eq!(client.request(&Own::Add { a: 2, b: 3 }).unwrap(), 5);
    for asked in 1..=2 {
        let counters = client.request(&CommonCommand::Counters {}).unwrap();
        let expected = json!({ "schema_version": 1, "daemon": "vhost-test", "version": "1", "asked": asked });
        assert_eq!(counters, expected);
    }
    let refused = client.request(&Own::Add { a: u32::MAX, b: 1 });
    assert!(
        matches!(&refused, Err(ClientError::Refused(reason)) if reason == "the sum is too large"),
        "{refused:?}"
    );
}

#[test]
fn objects_are_selected_by_guest_and_kind() {
    let host = Host::start();
    let mut client = host.client();
    let mut objects = |guest: Option<&str>, kind: Option<&str>| {
        let (guest, kind) = (guest.map(str::to_owned), kind.map(str::to_owned));
        client.request(&CommonCommand::Objects { guest, kind })
    };
    let all = json!({ "a": { "cqs": { "7": "a" }, "eqs": {} }, "b": { "cqs": { "7": "b" }, "eqs": {} } });
    assert_eq!(objects(None, None).unwrap(), all);
    assert_eq!(objects(Some("b"), None).unwrap(), json!({ "b": all["b"] }));
    assert_eq!(objects(Some("a"), Some("eqs")).unwrap(), json!({ "a": { "eqs": {} } }));
    for (guest, kind, reason) in [
        (Some("c"), None, "the daemon refused: there is no guest \"c\""),
        (
            None,
            Some("qps"),
            "the daemon refused: there are no objects \"qps\", only cqs, eqs",
        ),
    ] {
        assert_eq!(objects(guest, kind).unwrap_err().to_string(), reason);
    }
}

#[test]
fn what_follows_an_answer_comes_before_the_next() {
    let host = Host::start();
    let mut client = host.client();
    assert_eq!(client.request(&Own::Follow {}).unwrap(), "head");
    let mut body = String::new();
    client.input().read_line(&mut body).unwrap();
    assert_eq!(body, "body\n");
    assert_eq!(client.request(&Own::Add { a: 1, b: 1 }).unwrap(), 2);
}

#[test]
fn a_connection_survives_its_bad_requests() {
    let host = Host::start();
    let stream = host.connect("control");
    let mut long = vec![b' '; MAX_REQUEST];
    long.push(b'\n');
    let fitting = format!("{:>65535}\n", r#"{"version":1,"command":"add","a":1,"b":2}"#);
    assert_eq!(fitting.len(), MAX_REQUEST);
    let cases: [(&[u8], &str); 6] = [
        (
            b"\n",
            r#"{"version":1,"error":"invalid request: EOF while parsing a value at line 2 column 0"}"#,
        ),
        (
            b"\xff\n",
            r#"{"version":1,"error":"invalid request: expected value at line 1 column 1"}"#,
        ),
        (
            b"{\"version\":3,\"command\":\"add\"}\n",
            r#"{"version":1,"error":"requests of version 3 are not supported"}"#,
        ),
        (
            &long,
            r#"{"version":1,"error":"the request is longer than 65536 bytes"}"#,
        ),
        (fitting.as_bytes(), r#"{"version":1,"result":3}"#),
        (
            b"{\"version\":1,\"command\":\"trace\",\"seconds\":-1}\n",
            r#"{"version":1,"error":"a trace takes from 0 to 86400 seconds"}"#,
        ),
    ];
    for (request, answer) in cases {
        assert_eq!(ask(&stream, request), format!("{answer}\n"));
    }
    // A request without its end is none.
    let mut out = &stream;
    out.write_all(b"{\"version\":1,\"command\":\"counters\"}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    (&stream).read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn idle_clients_do_not_stop_others_until_there_are_too_many() {
    let host = Host::start();
    let mut clients: Vec<Client> = (0..MAX_CONNECTIONS).map(|_| host.client()).collect();
    for client in clients.iter_mut().rev() {
        assert_eq!(client.request(&Own::Add { a: 1, b: 1 }).unwrap(), 2);
    }
    let refused = host.client().request(&Own::Add { a: 1, b: 1 });
    assert!(
        matches!(&refused, Err(ClientError::Refused(reason)) if reason == "16 connections are open already"),
        "{refused:?}"
    );
    // The stats socket has a limit of its own.
    let mut text = String::new();
    host.connect("stats").read_to_string(&mut text).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["asked"], 1);
    // A connection that ends makes room.
    clients.pop();
    loop {
        match host.client().request(&Own::Add { a: 1, b: 1 }) {
            Ok(sum) => break assert_eq!(sum, 2),
            Err(ClientError::Refused(_)) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_reader_of_the_stats_gets_those_of_its_moment() {
    let host = Host::start();
    for asked in 1..=2 {
        let mut text = String::new();
        host.connect("stats").read_to_string(&mut text).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["asked"], asked);
        assert!(text.ends_with("}\n"));
    }
}

#[test]
fn the_flight_recorder_can_be_turned_on_and_off() {
    let host = Host::start();
    let mut client = host.client();
    let recent = CommonCommand::Trace {
        seconds: 0.0,
        recent: true,
    };
    let refused = client.request(&recent);
    assert!(
        matches!(&refused, Err(ClientError::Refused(reason)) if reason == "the flight recorder is off"),
        "{refused:?}"
    );
    client.request(&CommonCommand::FlightRecorder { on: true }).unwrap();
    let header = client.request(&recent).unwrap();
    assert_eq!(header["guests"], json!(["a", "b"]));
    let mut end = String::new();
    client.input().read_line(&mut end).unwrap();
    assert_eq!(end, "{\"end\":true}\n");
    client.request(&CommonCommand::FlightRecorder { on: false }).unwrap();
    assert!(client.request(&recent).is_err());
}

#[test]
fn a_stream_waits_for_a_reader_that_pauses() {
    let daemon = Arc::<Daemon>::default();
    let service = ControlService::new(&daemon);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // As the server's, but shorter than the pause.
    ours.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    let served = thread::spawn(move || service.serve(&ours));
    theirs.write_all(b"{\"version\": 1, \"command\": \"flood\"}\n").unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(200));
    let mut answer = Vec::new();
    theirs.read_to_end(&mut answer).unwrap();
    served.join().unwrap().unwrap();
    let head = answer.iter().position(|byte| *byte == b'\n').unwrap();
    assert!(answer[head + 1..] == flood(), "{} bytes", answer.len());
}

#[test]
fn behind_a_stream_a_reader_has_its_limit_again() {
    let daemon = Arc::<Daemon>::default();
    let service = ControlService::new(&daemon);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let limit = Some(Duration::from_secs(7));
    ours.set_write_timeout(limit).unwrap();
    // The limit is the socket's, whichever descriptor it is asked by.
    let watched = ours.try_clone().unwrap();
    let served = thread::spawn(move || service.serve(&ours));
    let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
    for request in ["follow", "counters"] {
        let line = format!("{{\"version\": 1, \"command\": \"{request}\"}}\n");
        theirs.write_all(line.as_bytes()).unwrap();
        lines.next().unwrap().unwrap();
        if request == "follow" {
            assert_eq!(lines.next().unwrap().unwrap(), "body");
        }
    }
    assert_eq!(watched.write_timeout().unwrap(), limit);
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    served.join().unwrap().unwrap();
}
