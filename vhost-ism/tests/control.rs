//! The control socket, the metrics and `top` of the daemon.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use vhost_daemon::testing::{Daemon, Program, assert_control_page, await_socket, read_metrics, read_stats};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-ism"));

/// A daemon with the guests a and b.
struct Host {
    directory: tempfile::TempDir,
    _daemon: Daemon,
}

impl Host {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = PROGRAM.command();
        let sockets = [
            ("--socket-path", "a.sock"),
            ("--socket-path", "b.sock"),
            ("--stats-socket", "stats.sock"),
            ("--metrics-socket", "metrics.sock"),
            ("--control-socket", "control.sock"),
        ];
        for (option, name) in sockets {
            command.arg(option).arg(directory.path().join(name));
        }
        let daemon = Daemon::start(&mut command);
        await_socket(&directory.path().join("control.sock"));
        Self {
            directory,
            _daemon: daemon,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let mut program = PROGRAM.command();
        program
            .arg(command)
            .arg("--control-socket")
            .arg(self.path("control.sock"));
        program.args(arguments).output().unwrap()
    }
}

#[test]
fn every_command_is_documented() {
    let host = Host::start();
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/control.md"));
    let headings = ["Commands of both daemons", "Commands of vhost-ism"];
    assert_control_page(page, &headings, &host.path("control.sock"));
}

#[test]
fn a_guest_without_a_vmm_cannot_be_disconnected() {
    let host = Host::start();
    for (guest, reason) in [
        ("a", "no VMM is connected to guest \"a\""),
        ("c", "there is no guest \"c\""),
    ] {
        let output = host.run("ctl", &["disconnect", guest]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text, format!("error: the daemon refused: {reason}\n"));
    }
}

#[test]
fn objects_are_by_guest() {
    let host = Host::start();
    let output = host.run("ctl", &["--json", "objects"]);
    let objects: Value = serde_json::from_slice(&output.stdout).unwrap();
    let none = json!({ "sessions": [], "slabs": [], "dmbs": [] });
    assert_eq!(objects, json!({ "a": none, "b": none }));
}

#[test]
fn metrics_are_those_of_the_stats_socket() {
    let host = Host::start();
    let metrics = read_metrics(&host.path("metrics.sock"));
    let stats = read_stats(&host.path("stats.sock"));
    for name in ["sessions", "slabs", "slab_bytes", "used_bytes", "dmbs"] {
        assert_eq!(stats["fabric"][name], metrics[&format!("vhost_ism_{name}")], "{name}");
    }
    let counters = stats["guests"][1].as_object().unwrap();
    let counters = counters
        .iter()
        .filter(|(name, value)| value.is_u64() && *name != "sessions");
    let mut count = 0;
    for (name, value) in counters {
        let metric = format!("vhost_ism_{name}_total{{guest=\"b\"}}");
        assert_eq!(*value, metrics[&metric], "{name}");
        count += 1;
    }
    assert_eq!(count, 15);
}

#[test]
fn top_shows_fabric_and_guests_once() {
    let host = Host::start();
    let output = host.run("top", &["--once", "--interval", "0.1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["sessions", "slabs", "slab_bytes", "used_bytes", "dmbs"]);
    assert_eq!(lines[1], ["0", "0", "0", "0", "0"]);
    assert_eq!(lines[2], [""; 0]);
    assert_eq!(lines[4], ["a", "none", "0", "0", "0", "0", "0", "0", "0", "0"]);
    assert_eq!(lines[5], ["b", "none", "0", "0", "0", "0", "0", "0", "0", "0"]);
}
