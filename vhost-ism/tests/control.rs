//! The control socket, the metrics and `top` of the daemon.

#[allow(unused_imports, reason = "other test binaries use them")]
mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use common::{Event, Options, TestGuest};
use rustix::process::Signal;
use serde_json::{Value, json};
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;
use vhost_daemon::testing::{Daemon, Program, assert_control_page, await_socket, eventually, read_metrics, read_stats};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-ism"));

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
            ("--metrics-socket", "metrics.sock"),
            ("--control-socket", "control.sock"),
        ];
        for (option, name) in sockets {
            command.arg(option).arg(directory.path().join(name));
        }
        // Where records on demand may be.
        command.current_dir(directory.path());
        let daemon = Daemon::start(command.args(more));
        await_socket(&directory.path().join("control.sock"));
        Self { directory, daemon }
    }

    /// Boots two guests, the first with a DMB that the second has attached.
    fn share(&self) -> (TestGuest, TestGuest) {
        let [mut a, mut b] = ["a.sock", "b.sock"].map(|name| {
            let mut guest = TestGuest::connect(&self.path(name), Options::default());
            guest.start();
            guest
        });
        let dmb = a.alloc_for_peer(b.gid(), 5000).unwrap();
        b.attach(dmb.token).unwrap();
        (a, b)
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

    /// Executes a command. Returns its result.
    fn ctl(&self, arguments: &[&str]) -> Value {
        let output = self.run("ctl", &[&["--json"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Executes a command that the daemon refuses. Returns the reason.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run("ctl", arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let reason = text.strip_prefix("error: the daemon refused: ");
        reason.expect(&text).trim_end().to_owned()
    }
}

/// A VMM that has started the device.
fn visit(socket: &Path) -> Frontend {
    let frontend = Frontend::connect(socket, 3).unwrap();
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    frontend.set_features(features).unwrap();
    // The back-end answers in order.
    frontend.get_features().unwrap();
    frontend
}

#[test]
fn the_guests_are_recorded_on_demand() {
    let host = Host::start(&["--recordable"]);
    let [first, second] = ["first.record", "second.record"].map(|name| host.path(name).display().to_string());
    let replay = |record: &str| {
        let output = PROGRAM.run(&["replay", record]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(host.ctl(&["record", &first]), json!({ "begun": true }));
    // The file in progress is left alone.
    assert_eq!(host.refusal(&["record", &first]), "a record is in progress already");
    drop(visit(&host.path("b.sock")));
    host.ctl(&["record-end"]);
    assert_eq!(host.refusal(&["record-end"]), "there is no record");
    let text = replay(&first);
    assert!(text.starts_with("guests a, b, recorded by vhost-ism "), "{text}");
    assert!(text.ends_with("all outputs are equal\n"), "{text}");

    // The sandbox has the working directory only.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("ism.record").display().to_string();
    let refused = "cannot write the record: Permission denied (os error 13)";
    assert_eq!(host.refusal(&["record", &file]), refused);

    // The record begins behind the last VMM, on a thread that has waited for its workers.
    let vmm = visit(&host.path("a.sock"));
    assert_eq!(host.ctl(&["record", &second]), json!({ "begun": false }));
    assert_eq!(host.refusal(&["record", &first]), "a record is to begin already");
    drop(visit(&host.path("b.sock")));
    assert_eq!(fs::metadata(&second).unwrap().len(), 0);
    drop(vmm);
    eventually("the begin of the record", || fs::metadata(&second).unwrap().len() > 0);
    drop(visit(&host.path("b.sock")));
    // The daemon completes it.
    assert_eq!(host.daemon.end(Signal::TERM).0, Some(0));
    let text = replay(&second);
    assert!(text.ends_with("all outputs are equal\n"), "{text}");
}

#[test]
fn every_command_is_documented() {
    let host = Host::start(&[]);
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/control.md"));
    let headings = ["Commands of both daemons", "Commands of vhost-ism"];
    assert_control_page(page, &headings, &host.path("control.sock"));
}

#[test]
fn a_guest_without_a_vmm_cannot_be_disconnected() {
    let host = Host::start(&[]);
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
fn a_guest_is_disconnected() {
    let host = Host::start(&[]);
    let (mut a, mut b) = host.share();
    let gone = a.gid();
    assert_eq!(host.ctl(&["disconnect", "a"]), json!({}));
    assert_eq!(b.expect_event(), Event::PeerGone(gone));
    eventually("the end of the connection", || a.frontend.get_features().is_err());
    assert_eq!(host.refusal(&["disconnect", "a"]), "no VMM is connected to guest \"a\"");
    // The socket takes the next VMM.
    drop(a);
    a = TestGuest::connect(&host.path("a.sock"), Options::default());
    a.start();
    assert_ne!(a.gid(), gone);
}

#[test]
fn a_guest_is_reset() {
    let host = Host::start(&[]);
    assert_eq!(
        host.refusal(&["reset", "a"]),
        "the driver of guest \"a\" has no session"
    );
    assert_eq!(host.refusal(&["reset", "c"]), "there is no guest \"c\"");
    let (mut a, mut b) = host.share();
    let gone = a.gid();
    assert_eq!(host.ctl(&["reset", "a"]), json!({}));
    assert_eq!(b.expect_event(), Event::PeerGone(gone));
    let stats = read_stats(&host.path("stats.sock"));
    assert_eq!(stats["guests"][0]["suspicions"]["dmb_left"], 0, "{stats:#}");
    // The driver works once it probes the device anew.
    a.reset();
    assert_ne!(a.gid(), gone);
    b.alloc_for_peer(a.gid(), 5000).unwrap();
}

#[test]
fn findings_are_followed() {
    let host = Host::start(&[]);
    let mut program = PROGRAM.command();
    program
        .arg("ctl")
        .arg("--control-socket")
        .arg(host.path("control.sock"));
    program.args(["--json", "findings", "a", "--follow"]);
    let mut follower = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "[]");
    let mut guests = ["b", "a"].map(|name| {
        let mut guest = TestGuest::connect(&host.path(&format!("{name}.sock")), Options::default());
        guest.start();
        guest
    });
    // That of b is not followed.
    guests.iter_mut().for_each(|guest| drop(guest.request(&[9, 8, 7], 8)));
    let mut records = lines.map(Result::unwrap).filter(|line| !line.is_empty());
    let record: Value = serde_json::from_str(&records.next().unwrap()).unwrap();
    let found = ["guest", "finding", "object", "evidence"].map(|field| record[field].as_str().unwrap());
    assert_eq!(found, ["a", "bad_request", "virtqueue", "090807"]);
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_shell_completes_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = PROGRAM.run(&["completion", shell]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for word in ["disconnect", "reset", "findings", "--follow", "record-end"] {
            assert!(text.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
    }
}

#[test]
fn objects_are_by_guest() {
    let host = Host::start(&[]);
    let output = host.run("ctl", &["--json", "objects"]);
    let objects: Value = serde_json::from_slice(&output.stdout).unwrap();
    let none = json!({ "sessions": [], "slabs": [], "dmbs": [] });
    assert_eq!(objects, json!({ "a": none, "b": none }));
}

#[test]
fn metrics_are_those_of_the_stats_socket() {
    let host = Host::start(&[]);
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
    let host = Host::start(&[]);
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
