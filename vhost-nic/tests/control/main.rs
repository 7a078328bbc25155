//! The control socket of the daemon, through its own client and without.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;
use serde_json::{Value, json};
use vhost_daemon::testing::{Daemon, Program, assert_control_page, await_socket, eventually, read_stats};

#[path = "../../pci-function/tests/vhost_user_pci/driver.rs"]
#[expect(dead_code, reason = "a part of it is used here")]
mod driver;
mod watching;

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
        command.current_dir(directory.path());
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
    // Each NIC counts its queues: a number alone names none.
    let of_queue = ["--seconds", "0", "--queue", "0x40"];
    assert_eq!(host.run("trace", &of_queue).status.code(), Some(2));
    assert!(
        host.run("trace", &[&of_queue[..], &["--guest", "b"]].concat())
            .status
            .success()
    );
    let unknown = host.refusal("trace", &["--seconds", "0", "--guest", "c"]);
    assert_eq!(unknown, "error: there is no guest \"c\"; the guests are a, b\n");
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

/// Reads the vendor of the guest's function, with a client of its own.
fn visit(socket: &Path) {
    let mut client = vfio_user::Client::new(socket).unwrap();
    let mut vendor = [0; 2];
    client.region_read(CONFIG_REGION, 0, &mut vendor).unwrap();
    assert_eq!(vendor, [0xb3, 0x15]);
}

#[test]
fn a_guest_is_recorded_on_demand() {
    let host = Host::start(&["--recordable"]);
    let [first, second] = ["first.record", "second.record"].map(|name| host.path(name).display().to_string());
    let replay = |record: &str| {
        let output = PROGRAM.run(&["replay", record]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // No VMM has used the NIC, whose cable is out.
    host.ctl(&["cable", "a", "out"]);
    assert_eq!(host.json(&["record", "a", &first]), json!({ "begun": true }));
    // The file in progress is left alone.
    let again = host.refusal("ctl", &["record", "a", &first]);
    assert!(again.ends_with(": a record is in progress already\n"), "{again}");
    visit(&host.path("a.sock"));
    eventually("the end of the connection", || {
        read_stats(&host.path("stats.sock"))["guests"][0]["attachment"]["vfio_user"]["connections"] == 1
    });
    host.ctl(&["record-end", "a"]);
    let text = replay(&first);
    // The power cycle, the cable, the connection, a read; then the end, if the daemon has seen it.
    assert!(text.contains(" entries (1 register accesses, 0 commands), "), "{text}");

    // The sandbox has the working directory only.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("a.record").display().to_string();
    let refused = host.refusal("ctl", &["record", "a", &file]);
    assert!(
        refused.ends_with(": cannot write the record: Permission denied (os error 13)\n"),
        "{refused}"
    );

    // A VMM uses the NIC: the record begins with the next one.
    let mut client = vfio_user::Client::new(&host.path("b.sock")).unwrap();
    client.region_read(CONFIG_REGION, 0, &mut [0; 2]).unwrap();
    assert_eq!(host.json(&["record", "b", &second]), json!({ "begun": false }));
    let again = host.refusal("ctl", &["record", "b", &first]);
    assert!(again.ends_with(": a record is to begin already\n"), "{again}");
    assert_eq!(fs::metadata(&second).unwrap().len(), 0);
    client.shutdown().unwrap();
    drop(client);
    eventually("the begin of the record", || fs::metadata(&second).unwrap().len() > 0);
    visit(&host.path("b.sock"));
    // The daemon completes it.
    assert_eq!(host.daemon.end(Signal::TERM).0, Some(0));
    assert!(replay(&second).contains(" entries (1 register accesses, 0 commands), "));
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
            json!({
                "error": "invalid request: unknown variant `fly`, expected one of `cable`, `speed`, `mac_table`, \
                          `flr`, `record`, `record_end`, `capture`",
                "version": 1,
            }),
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
        "error: the daemon refused: there is no guest or port \"c\"\n"
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
    let port = json!({ "initialized": false, "state": {
        "admin_modes": 0x9040_0092_u32, "admin_up": true, "cable": true, "partner_modes": 0x9040_0092_u32, "pmtu": 1522,
    } });
    assert_eq!(objects, json!({ "b": { "port": port } }));
    assert_eq!(
        host.ctl(&["objects", "b", "--kind", "port"]),
        "b\n  port\n    initialized: false\n    state\n      admin_modes: 2420113554\n      admin_up: true\n      \
         cable: true\n      partner_modes: 2420113554\n      pmtu: 1522\n"
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
fn the_other_end_of_the_cable_has_a_speed() {
    let host = Host::start(&[]);
    let speed = |guest: usize| read_stats(&host.path("stats.sock"))["guests"][guest]["speed_gbps"].clone();
    for gbps in ["1", "10", "25", "40", "50", "100"] {
        assert_eq!(host.ctl(&["speed", "a", gbps]), "");
        assert_eq!(
            (speed(0).to_string(), speed(1).to_string()),
            (gbps.to_owned(), "100".to_owned())
        );
    }
    assert_eq!(host.ctl(&["speed", "a", "25"]), "");
    assert_eq!(
        host.refusal("ctl", &["speed", "a", "400"]),
        "error: the daemon refused: the speeds of the NIC are 1, 10, 25, 40, 50, 100 Gb/s\n"
    );
    assert_eq!(speed(0), 25);
    assert_eq!(host.ctl(&["cable", "a", "out"]), "");
    assert_eq!(speed(0), 0);
    assert_eq!(host.ctl(&["cable", "a", "in"]), "");
    assert_eq!(host.ctl(&["speed", "a"]), "");
    assert_eq!(speed(0), 100);
}

#[test]
fn the_mac_table_is_empty_before_a_frame() {
    let host = Host::start(&[]);
    assert_eq!(host.json(&["mac-table"]), json!([]));
    assert_eq!(host.ctl(&["mac-table"]), "");
}

/// VFIO_PCI_CONFIG_REGION_INDEX (linux/vfio.h).
const CONFIG_REGION: u32 = 7;

#[test]
fn a_function_that_is_reset_decodes_nothing() {
    let host = Host::start(&[]);
    let mut client = vfio_user::Client::new(&host.path("a.sock")).unwrap();
    // Memory decoding and bus mastering.
    client.region_write(CONFIG_REGION, 4, &[0b110, 0]).unwrap();
    let mut firmware = || {
        let mut revision = [0; 4];
        client.region_read(0, 0, &mut revision).unwrap();
        revision
    };
    // Major and minor version of the firmware.
    assert_eq!(firmware(), [0, 35, 0, 16]);
    assert_eq!(host.ctl(&["flr", "b"]), "");
    assert_eq!(firmware(), [0, 35, 0, 16]);
    assert_eq!(host.ctl(&["flr", "a"]), "");
    assert_eq!(firmware(), [0xff; 4]);
    let mut command = [0xff; 2];
    client.region_read(CONFIG_REGION, 4, &mut command).unwrap();
    assert_eq!(command, [0, 0]);
    let stats = read_stats(&host.path("stats.sock"));
    assert_eq!(stats["guests"][1]["function"]["resets"], 1);
    client.shutdown().unwrap();
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

#[test]
fn every_command_is_documented() {
    let host = Host::start(&[]);
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/control.md"));
    let headings = ["Commands of both daemons", "Commands of vhost-nic"];
    assert_control_page(page, &headings, &host.path("control.sock"));
}
