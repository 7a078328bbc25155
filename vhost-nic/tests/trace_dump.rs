//! Dumps of the flight recorder, by the daemon as a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Signal, kill_process};
use vhost_daemon::testing::{Daemon, Program, await_socket, eventually, is_empty};
use vhost_daemon::trace::{ReadEvent, read_perfetto};

use driver::{Driver, header};

#[path = "../pci-function/tests/vhost_user_pci/driver.rs"]
#[expect(dead_code, reason = "a part of it is used here")]
mod driver;

/// VFIO_PCI_CONFIG_REGION_INDEX (linux/vfio.h).
const VFIO_PCI_CONFIG_REGION_INDEX: u32 = 7;
/// First doorbell of a UAR that is not allocated.
const UAR_DOORBELL: u64 = 0x1_0800;
const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-nic"));

fn start(socket: &Path, dumps: &Path, more: &[&str]) -> Daemon {
    let mut command = PROGRAM.command();
    command
        .arg("--socket-path")
        .arg(socket)
        .arg("--trace-dump")
        .arg(dumps)
        .args(more);
    let daemon = Daemon::start(&mut command);
    await_socket(socket);
    daemon
}

/// Rings a doorbell in a UAR that is not allocated.
fn ring_stray(socket: &Path) {
    let mut client = vfio_user::Client::new(socket).unwrap();
    let memory_decoding = [1 << 1, 0];
    client
        .region_write(VFIO_PCI_CONFIG_REGION_INDEX, 4, &memory_decoding)
        .unwrap();
    client.region_write(0, UAR_DOORBELL, &[0; 8]).unwrap();
    client.shutdown().unwrap();
}

/// Waits for a dump, and returns its events.
fn read(dumps: &Path, number: u32) -> Vec<ReadEvent> {
    let path = dumps.join(format!("vhost-nic-{number:06}.pftrace"));
    eventually("the dump", || path.exists());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    read_perfetto(&fs::read(path).unwrap())
}

fn finding() -> ReadEvent {
    ReadEvent {
        track: ["a", "finding stray_doorbell"].map(str::to_owned),
        event: "finding".to_owned(),
        label: "stray_doorbell 0x10".to_owned(),
    }
}

#[test]
fn a_finding_is_in_the_dump_that_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, dumps) = (dir.path().join("a.sock"), dir.path().join("dumps"));
    fs::create_dir(&dumps).unwrap();
    for (number, more) in [&[][..], &["--trace-dump-on", "finding=stray_doorbell"]]
        .iter()
        .enumerate()
    {
        let daemon = start(&socket, &dumps, more);
        ring_stray(&socket);
        assert_eq!(read(&dumps, number as u32 + 1), [finding()], "{more:?}");
        kill_process(daemon.pid(), Signal::TERM).unwrap();
        let log = daemon.log();
        let path = dumps.join(format!("vhost-nic-{:06}.pftrace", number + 1));
        let line = format!(
            "{}: the latest 1 events, on finding of guest a: stray_doorbell 0x10",
            path.display()
        );
        assert!(log.iter().any(|text| text.ends_with(&line)), "no {line:?} in {log:#?}");
    }
}

#[test]
fn a_finding_of_an_attachment_by_vhost_user_is_in_the_dump_that_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, dumps) = (dir.path().join("uml.sock"), dir.path().join("dumps"));
    fs::create_dir(&dumps).unwrap();
    let mut command = PROGRAM.command();
    command
        .arg("--guest")
        .arg(format!("path={},attach=vhost-user", socket.display()))
        .arg("--trace-dump")
        .arg(&dumps)
        .args(["--trace-dump-on", "finding=bad_command"]);
    let _daemon = Daemon::start(&mut command);
    await_socket(&socket);
    let mut driver = Driver::connect(&socket);
    // Half a header; then a whole one of an unknown command.
    assert!(driver.command(&[1; 8], &[], 4).is_empty());
    assert_eq!(driver.command(&header(255, 0, 4, 0), &[], 4), [0xff; 4]);
    let found = |event: &ReadEvent| event.event == "finding";
    let findings: Vec<ReadEvent> = read(&dumps, 1).into_iter().filter(found).collect();
    let finding = ReadEvent {
        track: ["uml", "finding bad_command"].map(str::to_owned),
        event: "finding".to_owned(),
        // The object is the virtqueue of commands.
        label: "bad_command 0x0".to_owned(),
    };
    assert_eq!(findings, [finding.clone(), finding]);
}

#[test]
fn a_fault_is_in_the_dump_that_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, dumps, plan) = (
        dir.path().join("a.sock"),
        dir.path().join("dumps"),
        dir.path().join("plan.toml"),
    );
    fs::create_dir(&dumps).unwrap();
    // Of the finding that comes with it, the first of the triggers by default, there is another dump.
    fs::write(&plan, "[[fault]]\nkind = \"bar_dead\"\ncount = 1").unwrap();
    let daemon = start(&socket, &dumps, &["--faults", plan.to_str().unwrap()]);
    let mut client = vfio_user::Client::new(&socket).unwrap();
    client
        .region_write(VFIO_PCI_CONFIG_REGION_INDEX, 4, &[1 << 1, 0])
        .unwrap();
    let mut read_as = [0; 4];
    client.region_read(0, 0, &mut read_as).unwrap();
    assert_eq!(read_as, [0xff; 4]);
    client.shutdown().unwrap();
    let fault = ReadEvent {
        track: ["a", "object"].map(str::to_owned),
        event: "fault".to_owned(),
        label: "fault".to_owned(),
    };
    assert_eq!(read(&dumps, 1), [fault]);
    kill_process(daemon.pid(), Signal::TERM).unwrap();
    let log = daemon.log();
    let line = ": the latest 1 events, on fault of guest a";
    assert!(log.iter().any(|text| text.contains(line)), "{log:#?}");
}

#[test]
fn a_signal_asks_for_a_dump_and_other_findings_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, dumps) = (dir.path().join("a.sock"), dir.path().join("dumps"));
    fs::create_dir(&dumps).unwrap();
    for (number, on) in ["signal", "finding=cq_overrun,error_cqe,ack_timeout"]
        .iter()
        .enumerate()
    {
        let daemon = start(&socket, &dumps, &["--flight-recorder", "64K", "--trace-dump-on", on]);
        ring_stray(&socket);
        kill_process(daemon.pid(), Signal::USR1).unwrap();
        assert_eq!(read(&dumps, number as u32 + 1), [finding()], "{on}");
        assert_eq!(daemon.end(Signal::TERM).0, Some(0));
        assert_eq!(fs::read_dir(&dumps).unwrap().count(), number + 1, "{on}");
    }
}

#[test]
fn the_number_of_dumps_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, dumps) = (dir.path().join("a.sock"), dir.path().join("dumps"));
    fs::create_dir(&dumps).unwrap();
    let daemon = start(&socket, &dumps, &["--trace-dump-files", "2"]);
    for number in 1..4 {
        kill_process(daemon.pid(), Signal::USR1).unwrap();
        assert_eq!(read(&dumps, number), []);
    }
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert_eq!(fs::read_dir(&dumps).unwrap().count(), 2);
    assert!(!dumps.join("vhost-nic-000001.pftrace").exists());
}

#[test]
fn bad_command_lines() {
    let dir = tempfile::tempdir().unwrap();
    let dumps = dir.path().to_str().unwrap();
    for args in [
        &["--socket-path", "x", "--flight-recorder"][..],
        &["--socket-path", "x", "--trace-dump-on", "fault"],
        &["--socket-path", "x", "--trace-dump-files", "3"],
        &["--socket-path", "x", "--trace-dump", dumps, "--trace-dump-files", "0"],
        &["--socket-path", "x", "--trace-dump", dumps, "--flight-recorder", "63K"],
    ] {
        assert_eq!(PROGRAM.run(args).status.code(), Some(2), "{args:?}");
    }
    for (args, expected) in [
        (
            &["--trace-dump", "/no/such/directory"][..],
            "error: cannot write dumps to /no/such/directory: No such file or directory (os error 2)\n",
        ),
        (
            &["--trace-dump", dumps, "--trace-dump-on", "finding=none"],
            "error: --trace-dump-on finding=none: there is no such event; the events are signal, error_cqe, ",
        ),
    ] {
        let socket = dir.path().join("a.sock");
        let output = PROGRAM
            .command()
            .arg("--socket-path")
            .arg(&socket)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(expected), "{args:?}: {text}");
        assert!(is_empty(dir.path()), "{args:?}");
    }
}
