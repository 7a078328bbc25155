//! Dumps of the flight recorder, by the daemon as a program.

#[allow(unused_imports, reason = "other test binaries use them")]
mod common;

use std::fs;

use common::*;
use rustix::process::{Signal, kill_process};
use vhost_daemon::testing::{Daemon, Program, await_socket, eventually};
use vhost_daemon::trace::{ReadEvent, read_perfetto};
use vhost_ism::abi::{CMD_SUBSCRIBE, EV_UPDATE, Status};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-ism"));

#[test]
fn a_fault_asks_for_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    let [socket, dumps, plan] = ["a.sock", "dumps", "plan.toml"].map(|name| dir.path().join(name));
    fs::create_dir(&dumps).unwrap();
    let rule = "[[fault]]\nkind = \"request_refused\"\nrequest = \"subscribe\"\nstatus = \"no_mem\"\n";
    fs::write(&plan, rule).unwrap();
    let mut command = PROGRAM.command();
    for (option, path) in [
        ("--socket-path", &socket),
        ("--trace-dump", &dumps),
        ("--faults", &plan),
    ] {
        command.arg(option).arg(path);
    }
    let daemon = Daemon::start(&mut command);
    await_socket(&socket);
    let mut guest = TestGuest::connect(&socket, Options::default());
    guest.start();
    guest.ping();
    assert_eq!(fs::read_dir(&dumps).unwrap().count(), 0);
    assert_eq!(guest.subscribe(EV_UPDATE), Err(Status::NoMem));
    let path = dumps.join("vhost-ism-000001.pftrace");
    eventually("the dump", || path.exists());
    let events = read_perfetto(&fs::read(path).unwrap());
    // Class and command of SUBSCRIBE.
    let object = u32::from(u16::from_be_bytes([CMD_SUBSCRIBE.0, CMD_SUBSCRIBE.1]));
    let faults: Vec<_> = events.iter().filter(|event| event.event == "fault").collect();
    let [fault] = &faults[..] else { panic!("{events:#?}") };
    assert_eq!(fault.track, ["a".to_owned(), format!("object {object:#x}")]);
    let request =
        |event: &ReadEvent| event.event == "request" && event.label.starts_with("SUBSCRIBE refused: status 12");
    assert_eq!(events.iter().filter(|event| request(event)).count(), 1, "{events:#?}");
    // A fault is no finding.
    assert!(events.iter().all(|event| event.event != "finding"), "{events:#?}");
    drop(guest);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_finding_or_a_signal_asks_for_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, dumps) = (dir.path().join("a.sock"), dir.path().join("dumps"));
    fs::create_dir(&dumps).unwrap();
    let mut command = PROGRAM.command();
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--trace-dump")
        .arg(&dumps);
    let daemon = Daemon::start(&mut command);
    await_socket(&socket);
    let read = |number: u32| {
        let path = dumps.join(format!("vhost-ism-{number:06}.pftrace"));
        eventually("the dump", || path.exists());
        let events = read_perfetto(&fs::read(path).unwrap());
        events
            .into_iter()
            .map(|event| (event.track[1].clone(), event.label))
            .collect::<Vec<_>>()
    };
    let mut guest = TestGuest::connect(&socket, Options::default());
    guest.start();
    // A request of a class that there is not.
    guest.request(&[9, 9, 9], 8);
    let first = read(1);
    let finding =
        |events: &[(String, String)]| events.iter().filter(|(track, _)| track.starts_with("finding ")).count();
    assert_eq!(finding(&first), 1, "{first:#?}");

    kill_process(daemon.pid(), Signal::USR1).unwrap();
    let second = read(2);
    assert_eq!(second[..first.len()], first);
    drop(guest);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert_eq!(fs::read_dir(&dumps).unwrap().count(), 2);
}
