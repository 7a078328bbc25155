//! All workloads over TCP on this host.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Server, client, report};
use rustix::process::Signal;

/// Runs a step against the server's IPv4 address and, if the host has IPv6, its IPv6 address.
fn with_server(step: impl Fn(&str)) {
    let mut arguments = vec![];
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        arguments.extend(["--bind", "::1"]);
    }
    let server = Server::start(&arguments);
    server.addresses.iter().for_each(|address| step(address));
}

#[test]
fn rtt() {
    with_server(|to| {
        for size in ["1", "64", "100000"] {
            let report = report(to, &["rtt", "--size", size, "--count", "50", "--warmup", "5"]);
            assert_eq!(report["count"], 50);
            let [min, p50, p99, max] =
                ["min_us", "p50_us", "p99_us", "max_us"].map(|name| report[name].as_f64().unwrap());
            assert!(0.0 < min && min <= p50 && p50 <= p99 && p99 <= max);
            assert_eq!(report["connection"]["mode"], "tcp");
        }
    });
}

#[test]
fn bulk() {
    with_server(|to| {
        for direction in ["to", "from", "both"] {
            for check in ["none", "pattern", "hash"] {
                let arguments = [
                    "bulk",
                    "--bytes",
                    "3000001",
                    "--write-size",
                    "70001",
                    "--direction",
                    direction,
                    "--check",
                    check,
                ];
                let report = report(to, &arguments);
                assert_eq!(report["bytes"], 3_000_001);
                let digests = ["digest_to", "digest_from"].map(|name| report[name].is_string());
                let hash = check == "hash";
                assert_eq!(digests, [hash && direction != "from", hash && direction != "to"]);
            }
        }
        assert_eq!(report(to, &["bulk", "--bytes", "0", "--check", "hash"])["bytes"], 0);
    });
}

#[test]
fn messages() {
    with_server(|to| {
        for size in ["8", "64", "300000"] {
            let report = report(to, &["messages", "--size", size, "--seconds", "1"]);
            assert!(report["messages"].as_u64().unwrap() > 32);
        }
    });
}

#[test]
fn connections() {
    with_server(|to| {
        let report = report(
            to,
            &["connections", "--count", "200", "--bytes-each", "50001", "--hold", "1"],
        );
        assert_eq!(report["connections"], 200);
        assert_eq!(report["modes"]["tcp"], 200);
        assert_eq!(report["rounds"], 2);
    });
}

#[test]
fn splice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data").to_str().unwrap().to_owned();
    with_server(|to| {
        for (drain, offset) in [("file", "0"), ("read", "4095"), ("alternate", "13")] {
            let arguments = [
                "splice",
                "--bytes",
                "5000001",
                "--file",
                &file,
                "--drain",
                drain,
                "--file-offset",
                offset,
            ];
            let report = report(to, &arguments);
            assert_eq!(report["bytes"], 5_000_001);
            assert!(
                ["splices", "sendfiles", "splices_to", "read_bytes"]
                    .iter()
                    .all(|name| report[name].as_u64() > Some(0))
            );
        }
    });
}

#[test]
fn load_for_some_time() {
    with_server(|to| {
        let report = report(to, &["load", "--seconds", "1"]);
        assert_eq!(report["end"], "time");
        assert!(report["sent_bytes"].as_u64() > Some(0) && report["received_bytes"].as_u64() > Some(0));
    });
}

/// Starts a client that runs until something ends it, and waits for its connection.
fn ready(to: &str, arguments: &[&str]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = client(to, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready tcp\n");
    (child, output)
}

fn last_line(output: BufReader<std::process::ChildStdout>) -> serde_json::Value {
    serde_json::from_str(&output.lines().last().unwrap().unwrap()).unwrap()
}

#[test]
fn hold_tells_when_the_server_dies() {
    let server = Server::start(&[]);
    let (mut child, output) = ready(&server.addresses[0], &["hold"]);
    server.end(Signal::KILL);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let report = last_line(output);
    assert_eq!(report["end"], "eof");
    assert!(report["monotonic"].as_f64() > report["seconds"].as_f64());
}

#[test]
fn load_tells_when_the_server_dies() {
    let server = Server::start(&[]);
    let (mut child, output) = ready(&server.addresses[0], &["load"]);
    server.end(Signal::KILL);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let report = last_line(output);
    assert!(report["end"] == "eof" || report["end"] == "error", "{report}");
}

#[test]
fn load_ends_on_a_signal() {
    let server = Server::start(&[]);
    let (mut child, output) = ready(&server.addresses[0], &["load"]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(last_line(output)["end"], "signal");
}
