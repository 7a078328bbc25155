//! The control socket of the daemon, through its own client and without.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::vfio_user::VfioUserDevice;
use rustix::process::Signal;
use serde_json::{Value, json};
use vhost_daemon::testing::{
    Daemon, Program, assert_control_page, await_socket, eventually, http, read_metrics, read_stats,
};

use driver::{Driver, header};

#[path = "../pci-function/tests/vhost_user_pci/driver.rs"]
#[expect(dead_code, reason = "a part of it is used here")]
mod driver;

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

#[test]
fn metrics_are_those_of_the_stats_socket() {
    let host = Host::start(&[]);
    let mut client = vfio_user::Client::new(&host.path("a.sock")).unwrap();
    client.region_write(CONFIG_REGION, 4, &[0b110, 0]).unwrap();
    // Two doorbells in a UAR that is not allocated.
    for _ in 0..2 {
        client.region_write(0, 0x1_0800, &[0; 8]).unwrap();
    }
    client.shutdown().unwrap();
    eventually("the function is reset", || {
        read_stats(&host.path("stats.sock"))["guests"][0]["function"]["resets"] == 1
    });
    host.ctl(&["cable", "b", "out"]);
    host.ctl(&["speed", "a", "25"]);
    let stats = read_stats(&host.path("stats.sock"));
    let metrics = read_metrics(&host.path("metrics.sock"));
    for (name, value, of_stats) in [
        ("port_link_up{guest=\"a\"}", 1, ""),
        ("port_link_up{guest=\"b\"}", 0, ""),
        ("port_speed_bits_per_second{guest=\"a\"}", 25_000_000_000, ""),
        ("doorbells_total{guest=\"a\"}", 2, "/guests/0/doorbells"),
        ("doorbells_total{guest=\"b\"}", 0, "/guests/1/doorbells"),
        ("function_resets_total{guest=\"a\"}", 1, "/guests/0/function/resets"),
        (
            "guest_errors_total{guest=\"a\",kind=\"stray_doorbell\"}",
            2,
            "/guests/0/guest_errors/stray_doorbell",
        ),
        (
            "port_frames_total{guest=\"a\",direction=\"in\"}",
            0,
            "/guests/0/port/received",
        ),
        ("switch_stations{port=\"a\"}", 0, "/switch/ports/0/stations"),
        (
            "switch_drops_total{port=\"b\",reason=\"link_down\"}",
            0,
            "/switch/ports/1/dropped/link_down",
        ),
    ] {
        assert_eq!(metrics[&format!("vhost_nic_{name}")], value, "{name}");
        assert!(
            of_stats.is_empty() || stats.pointer(of_stats) == Some(&json!(value)),
            "{of_stats}"
        );
    }
}

#[test]
fn requests_for_anything_but_metrics_are_refused() {
    let host = Host::start(&[]);
    for (request, status) in [
        ("GET /favicon.ico HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("hello\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = http(&host.path("metrics.sock"), request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    }
    // A client that never finishes its request does not stop others.
    let _slow = UnixStream::connect(host.path("metrics.sock")).unwrap();
    assert!(!read_metrics(&host.path("metrics.sock")).is_empty());
}

#[test]
fn top_shows_each_guest_once() {
    let host = Host::start(&[]);
    host.ctl(&["cable", "b", "out"]);
    let output = host.run("top", &["--once", "--interval", "0.1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0][..3], ["guest", "Gb/s", "rx"]);
    assert_eq!(lines[1], ["a", "100", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0"]);
    assert_eq!(
        lines[2],
        ["b", "down", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0"]
    );
    assert_eq!(host.run("top", &["--interval", "0"]).status.code(), Some(2));
}

/// A guest of a daemon with an RDMA device and a network interface.
fn guest(host: &Host, name: &str, number: u8) -> (Node, Netdev) {
    let device = VfioUserDevice::connect(&host.path(&format!("{name}.sock")));
    let node = Node::open(Machine::new(Arc::new(device), mac(number)), number);
    let netdev = Netdev::open(&node.hca, &Options::default());
    (node, netdev)
}

/// The default MAC address of a guest.
fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0x00, 0x00, 0xc5, number]
}

#[test]
fn top_and_mac_table_show_traffic() {
    let host = Host::start(&[]);
    let [(a, mut sender), (b, mut receiver)] = [("a", 1), ("b", 2)].map(|(name, number)| guest(&host, name, number));
    let mut qps = [&a, &b].map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
    connect((&a, &qps[0]), (&b, &qps[1]), &Connection::default());
    let (from, to) = (a.region(4096), b.region(4096));
    let data = vec![Data::Memory((from.start, 100, from.key))];
    let write = Request::remote(WqeOpcode::RdmaWrite, data, to.start, to.key);
    let measured = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !measured.load(Ordering::Relaxed) {
                let index = qps[0].post(&write);
                qps[0].sent(WqeOpcode::RdmaWrite, index);
                // A command, and its interrupt.
                for (node, qp) in [&a, &b].into_iter().zip(&qps) {
                    qp.query(node).unwrap();
                }
                sender.send_to(&mut receiver, 0x5a);
            }
        });
        let output = host.run("top", &["--once", "--interval", "0.5"]);
        measured.store(true, Ordering::Relaxed);
        output
    });
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for (name, row) in ["a", "b"].into_iter().zip(&rows[1..]) {
        assert_eq!(row[..2], [name, "100"], "{text}");
        let rates: Vec<u64> = row[2..].iter().map(|cell| cell.parse().unwrap()).collect();
        let [
            of_wire @ ..,
            doorbells,
            interrupts,
            commands,
            all_commands,
            drops,
            errors,
        ] = &rates[..]
        else {
            panic!("{text}");
        };
        assert!(of_wire.len() == 4 && of_wire.iter().all(|rate| *rate > 0), "{text}");
        for rate in [doorbells, interrupts, commands, all_commands] {
            assert!(*rate > 0, "{text}");
        }
        assert_eq!((*drops, *errors), (0, 0), "{text}");
    }
    let qp = qps[0].number.to_string();
    let [sq, rq] = [sender.channels[0].sq.number, receiver.channels[0].rq.number].map(|number| number.to_string());
    for (name, kind, number, state, unit) in [
        ("a", "QP", &qp, "ready_to_send", &["packets", "out"][..]),
        ("b", "QP", &qp, "ready_to_send", &["packets", "in"]),
        ("a", "SQ", &sq, "ready", &["basic", "blocks"]),
        ("b", "RQ", &rq, "ready", &["WQEs"]),
    ] {
        let row = rows
            .iter()
            .find(|row| row.starts_with(&[name, kind, number]) && row.ends_with(unit));
        let row = row.unwrap_or_else(|| panic!("{name} {kind} {number} in {text}"));
        assert_eq!(row[3], state, "{text}");
        assert!(row[4].parse::<u64>().unwrap() > 0, "{text}");
    }

    let table = host.json(&["mac-table"]);
    let stations = table.as_array().unwrap().iter().map(|station| {
        assert!(station["age_seconds"].is_number(), "{table}");
        [&station["port"], &station["vlan"], &station["mac"]].map(Clone::clone)
    });
    let expected = [("a", 1), ("b", 2)].map(|(port, number)| {
        let mac = format!("52:54:00:00:c5:{number:02x}");
        [json!(port), json!(0), json!(mac)]
    });
    assert_eq!(stations.collect::<Vec<_>>(), expected);
    let text = host.ctl(&["mac-table"]);
    for (station, [port, _, mac]) in text.lines().filter(|line| line.contains("52:54")).zip(&expected) {
        assert!(
            station.contains(port.as_str().unwrap()) && station.contains(mac.as_str().unwrap()),
            "{text}"
        );
    }
    assert_eq!(text.matches("52:54:00:00:c5:").count(), 2, "{text}");

    for ((node, qp), region) in [&a, &b].into_iter().zip(&qps).zip([&from, &to]) {
        qp.destroy(node).unwrap();
        region.destroy(&node.hca).unwrap();
    }
    [sender, receiver].into_iter().for_each(Netdev::close);
    [a, b].into_iter().for_each(Node::close);
}

#[test]
fn errors_in_the_use_of_an_attachment_are_counted_as_errors_of_the_guest() {
    let host = Host::start(&["--guest", "path=uml.sock,attach=vhost-user"]);
    let mut driver = Driver::connect(&host.path("uml.sock"));
    assert_eq!(driver.command(&header(255, 0, 4, 0), &[], 4), [0xff; 4]);
    let metrics = read_metrics(&host.path("metrics.sock"));
    let name = "vhost_nic_guest_errors_total{guest=\"uml\",kind=\"bad_command\"}";
    assert_eq!(metrics.get(name), Some(&1), "{metrics:#?}");
    let output = host.run("top", &["--once", "--interval", "0.1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let row = text.lines().find(|line| line.trim_start().starts_with("uml "));
    let errors = row.and_then(|row| row.split_whitespace().last());
    assert_eq!(errors, Some("1"), "{text}");
}

#[test]
fn findings_are_shown_and_followed() {
    let host = Host::start(&[]);
    assert_eq!(host.json(&["findings"]), json!([]));
    let refusal = host.refusal("ctl", &["findings", "c"]);
    assert_eq!(refusal, "error: the daemon refused: there is no guest \"c\"\n");
    let mut client = UnixStream::connect(host.path("control.sock")).unwrap();
    client
        .write_all(b"{\"version\":1,\"command\":\"findings\",\"follow\":true}\n")
        .unwrap();
    let mut lines = BufReader::new(client).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), r#"{"version":1,"result":[]}"#);
    let mut guest = vfio_user::Client::new(&host.path("a.sock")).unwrap();
    // Memory decoding, then a doorbell in a UAR that is not allocated.
    guest.region_write(CONFIG_REGION, 4, &[1 << 1, 0]).unwrap();
    guest.region_write(0, 0x1_0800, &[0, 0, 1, 0, 0, 0, 0x40, 0]).unwrap();
    let line = lines.find(|line| !line.is_empty()).unwrap();
    let record: Value = serde_json::from_str(&line).unwrap();
    let fields = ["guest", "finding", "severity", "object", "number", "evidence", "count"];
    assert_eq!(
        fields.map(|name| record[name].clone()),
        [
            json!("a"),
            json!("stray_doorbell"),
            json!("error"),
            json!("uar"),
            json!(16),
            json!("0000010000004000"),
            json!(1)
        ]
    );
    assert_eq!(host.json(&["findings", "a"]), json!([record]));
    assert_eq!(host.json(&["findings", "b"]), json!([]));
    guest.shutdown().unwrap();
}
