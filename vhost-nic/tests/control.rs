//! The control socket of the daemon, through its own client and without.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Output;

use rustix::process::Signal;
use serde_json::{Value, json};
use vhost_daemon::testing::{Daemon, Program, await_socket, read_stats};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-nic"));

/// A daemon with the guests a and b.
struct Host {
    directory: tempfile::TempDir,
    daemon: Daemon,
}

impl Host {
    fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = PROGRAM.command();
        let sockets = [
            ("--socket-path", "a.sock"),
            ("--socket-path", "b.sock"),
            ("--stats-socket", "stats.sock"),
            ("--control-socket", "control.sock"),
        ];
        for (option, name) in sockets {
            command.arg(option).arg(directory.path().join(name));
        }
        let daemon = Daemon::start(command.args(more));
        await_socket(&directory.path().join("stats.sock"));
        await_socket(&directory.path().join("control.sock"));
        Self { directory, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the program with a command that is a client of the daemon.
    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let mut program = PROGRAM.command();
        program.current_dir(self.directory.path());
        program
            .args([command, "--control-socket", "control.sock"])
            .args(arguments);
        program.output().unwrap()
    }

    /// Runs a command of the control socket, and returns the text that it prints.
    #[track_caller]
    fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.run("ctl", arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command of the control socket, and returns its result.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ctl(&[&["--json"], arguments].concat());
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Runs a command that is refused, and returns the line that it prints.
    #[track_caller]
    fn refusal(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }
}

#[test]
fn a_trace_of_a_daemon() {
    let host = Host::start(&[]);
    let recorded = host.run("trace", &["--seconds", "0.1", "--output", "t.json", "--format", "json"]);
    let text = String::from_utf8(recorded.stdout).unwrap();
    assert!(
        recorded.status.success() && text.starts_with("0 events, 0 lost\n"),
        "{text}"
    );
    assert_eq!(fs::read(host.path("t.json")).unwrap(), b"");
    // There is no past to begin with.
    let refused = "error: cannot record a trace: the daemon refused: the flight recorder is off\n";
    let recent = ["--seconds", "0", "--recent"];
    assert_eq!(host.refusal("trace", &recent), refused);
    assert_eq!(host.ctl(&["flight-recorder", "on"]), "");
    assert!(host.run("trace", &recent).status.success());
    assert_eq!(host.ctl(&["flight-recorder", "off"]), "");
    assert_eq!(host.refusal("trace", &recent), refused);
    // The option is the command at the start.
    let host = Host::start(&["--flight-recorder"]);
    assert!(host.run("trace", &recent).status.success());
}

#[test]
fn requests_are_lines_of_json() {
    let host = Host::start(&[]);
    let control = host.path("control.sock");
    let mut client = UnixStream::connect(&control).unwrap();
    let mut answers = BufReader::new(client.try_clone().unwrap()).lines();
    for (request, answer) in [
        (
            "{}",
            json!({ "error": "requests of version null are not supported", "version": 1 }),
        ),
        (
            r#"{"version": 1, "command": "fly"}"#,
            json!({ "error": "invalid request: unknown variant `fly`, expected `cable`", "version": 1 }),
        ),
        (
            r#"{"version": 1, "command": "cable", "guest": "a", "plugged": false}"#,
            json!({ "result": {}, "version": 1 }),
        ),
    ] {
        client.write_all(format!("{request}\n").as_bytes()).unwrap();
        let line = answers.next().unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), answer, "{request}");
    }
    // A client that is connected does not keep the daemon.
    assert_eq!(host.daemon.end(Signal::TERM).0, Some(0));
    assert!(!control.exists());
}

#[test]
fn a_cable_is_pulled_and_plugged_in() {
    let host = Host::start(&[]);
    for (state, up) in [("out", false), ("in", true)] {
        assert_eq!(host.ctl(&["cable", "b", state]), "");
        let stats = read_stats(&host.path("stats.sock"));
        assert_eq!(stats["switch"]["ports"][0]["link_up"], true);
        assert_eq!(stats["switch"]["ports"][1]["link_up"], up);
        assert_eq!(stats["guests"][1]["link_up"], up);
    }
    assert_eq!(
        host.refusal("ctl", &["cable", "c", "out"]),
        "error: the daemon refused: there is no guest \"c\"\n"
    );
    assert_eq!(host.run("ctl", &["cable", "b", "up"]).status.code(), Some(2));
}

#[test]
fn counters_are_those_of_the_stats_socket() {
    let host = Host::start(&[]);
    let counters = host.json(&["counters"]);
    assert_eq!(counters, read_stats(&host.path("stats.sock")));
    assert_eq!(counters["guests"][1]["guest"], "b");
}

#[test]
fn objects_are_a_tree() {
    let host = Host::start(&[]);
    let objects = host.json(&["objects", "b", "--kind", "port"]);
    let port = json!({ "initialized": false, "state": { "admin_up": true, "cable": true, "pmtu": 1522 } });
    assert_eq!(objects, json!({ "b": { "port": port } }));
    assert_eq!(
        host.ctl(&["objects", "b", "--kind", "port"]),
        "b\n  port\n    initialized: false\n    state\n      admin_up: true\n      cable: true\n      pmtu: 1522\n"
    );
    let kinds = host.json(&["objects"]);
    assert_eq!(kinds["a"], kinds["b"]);
    assert_eq!(kinds["a"]["queues"], json!({}));
    let refused = host.refusal("ctl", &["objects", "--kind", "qps"]);
    assert!(
        refused.starts_with("error: the daemon refused: there are no objects \"qps\", only cqs, "),
        "{refused}"
    );
}

#[test]
fn a_daemon_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.sock");
    let output = PROGRAM.run(&["ctl", "--control-socket", path.to_str().unwrap(), "counters"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let expected = format!("error: cannot connect to {}: No such file or directory", path.display());
    assert!(text.starts_with(&expected) && text.lines().count() == 1, "{text}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = PROGRAM.run(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["flight-recorder", "cable", "out"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}
