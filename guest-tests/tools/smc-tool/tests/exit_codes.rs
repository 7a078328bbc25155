//! Exit codes and messages of failures.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{Server, run, smc_tool};
use rustix::process::Signal;

const FAILED: Option<i32> = Some(1);
const WRONG_DATA: Option<i32> = Some(2);
const WRONG_MODE: Option<i32> = Some(3);

/// Forwards data, with a bit flipped in the byte at this offset.
fn hand_on(mut from: TcpStream, mut to: TcpStream, flipped: Option<u64>) {
    let mut buffer = [0; 16 * 1024];
    let mut offset = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if let Some(index) = flipped.and_then(|flipped| usize::try_from(flipped.checked_sub(offset)?).ok())
            && index < length
        {
            buffer[index] ^= 0x10;
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        offset += length as u64;
    }
    // The peer may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}

/// Starts a proxy that corrupts data of each connection at the given offsets; returns its address.
fn spoiling_proxy(server: &str, upward: Option<u64>, downward: Option<u64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
            let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || hand_on(client, server, upward));
            std::thread::spawn(move || hand_on(server_too, client_too, downward));
        }
    });
    address
}

/// Length of the request at the start of the data.
const REQUEST: u64 = 48;

#[test]
fn spoilt_data_is_found_with_its_offset() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data").to_str().unwrap().to_owned();
    let server = Server::start(&[]);
    let upward = spoiling_proxy(&server.addresses[0], Some(REQUEST + 500_000), None);
    let downward = spoiling_proxy(&server.addresses[0], None, Some(500_000));
    for (proxy, arguments) in [
        (&upward, &["bulk", "--bytes", "1M"][..]),
        (&upward, &["bulk", "--bytes", "1M", "--direction", "both"]),
        (&upward, &["load", "--seconds", "10"]),
        (&upward, &["rtt", "--size", "64K", "--count", "50"]),
        (
            &downward,
            &["bulk", "--bytes", "1M", "--direction", "from", "--check", "hash"],
        ),
        (&downward, &["bulk", "--bytes", "1M", "--direction", "both"]),
        (&downward, &["load", "--seconds", "10"]),
        (&downward, &["splice", "--bytes", "1M", "--file", &file]),
        (&downward, &["connections", "--count", "4", "--bytes-each", "1M"]),
    ] {
        let output = run(proxy, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), WRONG_DATA, "{arguments:?}: {error}");
        assert!(error.contains("at offset 500000 "), "{arguments:?}: {error}");
    }
}

#[test]
fn spoilt_messages_are_found() {
    let server = Server::start(&[]);
    // In the middle of the number of a message.
    let proxy = spoiling_proxy(&server.addresses[0], Some(REQUEST + 64 * 1000 + 1), None);
    let output = run(&proxy, &["messages", "--seconds", "1", "--size", "64"]);
    // Only the number of the last message of a read is checked, so the corrupted one may go unnoticed.
    assert!([Some(0), WRONG_DATA].contains(&output.status.code()));
}

#[test]
fn wrong_mode_is_told() {
    let server = Server::start(&[]);
    for arguments in [
        &["rtt", "--expect-mode", "smcd"][..],
        &["connections", "--count", "2", "--expect-mode", "smcr"],
    ] {
        let output = run(&server.addresses[0], arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), WRONG_MODE, "{error}");
        assert!(error.contains("fallback reason"), "{error}");
    }
    assert_eq!(
        run(&server.addresses[0], &["rtt", "--expect-mode", "tcp", "--count", "1"])
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    assert_eq!(run(&free, &["rtt"]).status.code(), FAILED);
}

#[test]
fn silent_servers_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for workload in ["rtt", "bulk", "load"] {
        let start = Instant::now();
        let output = run(&address, &[workload, "--timeout", "0.3"]);
        assert_eq!(output.status.code(), FAILED);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("timed out"), "{workload}: {text}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn hold_has_a_limit() {
    let server = Server::start(&[]);
    let output = run(&server.addresses[0], &["hold", "--limit", "1"]);
    assert_eq!(output.status.code(), FAILED);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"end\":\"timeout\""));
}

#[test]
fn wrong_usage_is_not_taken_for_wrong_data() {
    for arguments in [
        &["rtt"][..],
        &["bulk", "--to", "127.0.0.1:1", "--bytes", "1X"],
        &["nonsense"],
    ] {
        assert_eq!(smc_tool().args(arguments).output().unwrap().status.code(), FAILED);
    }
    assert_eq!(smc_tool().arg("--help").output().unwrap().status.code(), Some(0));
}

#[test]
fn servers_end_on_sigterm() {
    let server = Server::start(&["--events"]);
    let address = server.addresses[0].clone();
    assert!(run(&address, &["rtt", "--count", "1"]).status.success());
    let _open = TcpStream::connect(&address).unwrap();
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
}
