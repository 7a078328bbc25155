//! The daemon as a program.

#[allow(unused_imports, reason = "other test binaries use them")]
#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod confined;
mod record;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::*;
use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost_daemon::testing::json::{assert_documented, assert_snake_case};
use vhost_daemon::testing::{Daemon, Program, await_socket, is_empty, read_stats};
use vhost_ism::abi::{NUM_QUEUES, PERM_ATTACH, PERM_READ, PERM_WRITE, Status};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-ism"));

fn boot(path: &Path) -> TestGuest {
    await_socket(path);
    let mut guest = TestGuest::connect(path, Options::default());
    guest.start();
    guest
}

/// Makes two guests of a daemon in another process exchange data.
fn meet(first: &Path, second: &Path) -> (TestGuest, TestGuest) {
    let (mut a, mut b) = (boot(first), boot(second));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    b.window.write(attached.offset, b"over there");
    b.ring(attached.offset);
    assert!(matches!(a.expect_event(), Event::Doorbells(_)));
    assert_eq!(a.window.read(dmb.offset, 10), b"over there");
    (a, b)
}

#[test]
fn two_sockets_counters_and_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b])
            .arg("--stats-socket")
            .arg(&stats)
            .args(["--chid", "0xff07"]),
    );
    await_socket(&stats);
    let before = read_stats(&stats);
    assert_eq!(before["fabric"]["sessions"], 0);
    let guests = meet(&a, &b);
    assert_eq!(guests.0.config.chid.get(), 0xff07);
    let during = read_stats(&stats);
    assert_eq!(during["chid"], 0xff07);
    assert_eq!(during["fabric"]["sessions"], 2);
    assert_eq!(during["fabric"]["dmbs"], 1);
    let named: Vec<&str> = during["guests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|guest| guest["guest"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["a", "b"]);
    assert_eq!(during["guests"][0]["allocs"], 1);
    assert_eq!(during["guests"][1]["attaches"], 1);
    assert_eq!(during["guests"][1]["doorbells"], 1);
    for guest in during["guests"].as_array().unwrap() {
        for (error, count) in guest["guest_errors"].as_object().unwrap() {
            assert_eq!(count, 0, "{error}");
        }
    }
    // While guests are connected.
    let (code, took) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(is_empty(dir.path()), "the sockets are gone");
}

#[test]
fn an_interrupt_ends_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let daemon = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path));
    await_socket(&path);
    let (code, took) = daemon.end(Signal::INT);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(is_empty(dir.path()));
}

#[test]
fn a_directory_of_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(PROGRAM.command().arg("--socket-dir").arg(dir.path()).args([
        "--guests",
        "3",
        "--region-size",
        "8M",
        "--max-dmb-size",
        "64K",
    ]));
    let path = |n: usize| dir.path().join(format!("guest{n}.sock"));
    let guests = meet(&path(0), &path(2));
    assert_eq!(guests.0.config.window_size.get(), 6 << 20);
    assert_eq!(guests.0.config.max_dmb_size.get(), 64 << 10);
    let mut last = boot(&path(1));
    assert_eq!(last.alloc(65 << 10), Err(Status::Err));
    drop((guests, last));
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert!(is_empty(dir.path()));
}

#[test]
fn the_largest_buffer_of_the_smallest_region() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b])
            .args(["--region-size", "8M", "--max-dmb-size", "1M"]),
    );
    let (mut a, mut b) = (boot(&a), boot(&b));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 20).unwrap();
    b.attach(dmb.token).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn an_inherited_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (path, own) = (dir.path().join("inherited.sock"), dir.path().join("own.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .args(["--fd", &listener.as_raw_fd().to_string()])
            .arg("--socket-path")
            .arg(&own),
    );
    drop(listener);
    let guests = meet(&path, &own);
    drop(guests);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert!(path.exists(), "only the process that created the socket removes it");
    assert!(!own.exists());
}

#[test]
fn guest_after_guest_and_daemon_after_daemon_on_the_sockets_of_a_service_manager() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let listeners = [&b, &stats, &a].map(|path| OwnedFd::from(UnixListener::bind(path).unwrap()));
    for _ in 0..2 {
        let mut command = PROGRAM.activated(&listeners);
        let daemon = Daemon::start(command.args(["--socket-activation", "--stats-socket"]).arg(&stats));
        for end in [TestGuest::kill, drop] {
            let (first, second) = meet(&a, &b);
            let seen = read_stats(&stats);
            let guests: Vec<&str> = seen["guests"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|guest| guest["guest"].as_str())
                .collect();
            assert_eq!(guests, ["b", "a"]);
            end(first);
            end(second);
        }
        assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    }
    assert!(
        [&a, &b, &stats].iter().all(|path| path.exists()),
        "the service manager removes them"
    );
}

#[test]
fn a_guest_comes_back_after_its_vmm_died() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
    let daemon =
        Daemon::start(
            PROGRAM
                .command()
                .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b]),
        );
    await_socket(&b);
    for _ in 0..5 {
        let (first, second) = meet(&a, &b);
        first.kill();
        second.kill();
    }
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

/// A reader that reads nothing blocks neither guests nor other readers.
#[test]
fn idle_readers_of_the_counters() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b])
            .arg("--stats-socket")
            .arg(&stats),
    );
    await_socket(&stats);
    let idle: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&stats).unwrap()).collect();
    let _guests = meet(&a, &b);
    assert!(read_stats(&stats)["guests"].is_array());
    drop(idle);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path));
    eventually("the stale socket is replaced", || UnixStream::connect(&path).is_ok());
    let (code, text) = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path)).fail();
    assert_eq!(code, Some(1));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(path.exists());
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_second_daemon_does_not_take_the_counters_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let start = |path: &PathBuf| {
        Daemon::start(
            PROGRAM
                .command()
                .arg("--socket-path")
                .arg(path)
                .arg("--stats-socket")
                .arg(&stats),
        )
    };
    let first = start(&a);
    await_socket(&stats);
    let (code, text) = start(&b).fail();
    assert_eq!(code, Some(1));
    assert!(text.contains("stats.sock"), "{text}");
    assert!(!b.exists(), "a daemon that cannot start leaves no socket behind");
    assert!(read_stats(&stats)["guests"].is_array());
    assert_eq!(first.end(Signal::TERM).0, Some(0));
}

/// The log of a guest that makes the same errors many times: at most one line per error and second.
#[test]
fn a_guests_mistakes_do_not_fill_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let daemon = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path));
    let mut guest = boot(&path);
    let start = Instant::now();
    for _ in 0..500 {
        guest.request(&[9, 9, 9], 8);
        guest.submit(&[Part::Ask(&[1])]);
        guest.ring(0);
    }
    drop(guest);
    let seconds = start.elapsed().as_secs() as usize;
    let lines = daemon.log();
    assert!(lines.len() < 12 + 3 * seconds, "{} lines: {lines:#?}", lines.len());
    let warnings = lines.iter().filter(|line| line.contains("malformed")).count();
    assert!(
        (1..=1 + seconds).contains(&warnings),
        "{warnings} in {seconds} s: {lines:#?}"
    );
}

/// Every field of the stats socket is documented, with objects of every kind present.
#[test]
fn every_field_of_the_stats_socket_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b])
            .arg("--stats-socket")
            .arg(&stats),
    );
    let (mut a, mut b) = meet(&a, &b);
    let granted = a.alloc(1 << 16).unwrap();
    let permissions = u64::from(PERM_ATTACH | PERM_READ | PERM_WRITE);
    a.grant(granted.token, Some(b.config.devid.get()), permissions).unwrap();
    b.attach(granted.token).unwrap();
    a.detach(granted.token).unwrap();
    let document = read_stats(&stats);
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["daemon"], "vhost-ism");
    assert_eq!(document["guests"][0]["session"]["connected_doorbells"], 0);
    assert_eq!(document["guests"][1]["session"]["connected_doorbells"], 2);
    assert_eq!(document["objects"]["dmbs"].as_array().unwrap().len(), 2);
    let held = |guest: usize| {
        let sessions = document["objects"]["sessions"].as_array().unwrap();
        let session = sessions
            .iter()
            .find(|session| session["id"] == document["guests"][guest]["gid"]);
        session.unwrap()["dmbs"].as_u64()
    };
    assert_eq!((held(0), held(1)), (Some(1), Some(2)));
    let text = document.to_string();
    assert!(
        !text.contains(&granted.token.to_string()),
        "a token lets its reader attach"
    );
    assert_snake_case(&document);
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stats.md"));
    assert_documented(&document, page, "vhost-ism");
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_vmm_that_cannot_map_is_refused_in_one_line() {
    for without in [
        VhostUserProtocolFeatures::BACKEND_REQ,
        VhostUserProtocolFeatures::REPLY_ACK,
        VhostUserProtocolFeatures::SHMEM,
        VhostUserProtocolFeatures::SHARED_OBJECT,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let daemon = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path));
        await_socket(&path);
        let mut guest = TestGuest::connect(
            &path,
            Options {
                without,
                ..Options::default()
            },
        );
        guest.start();
        for _ in 0..100 {
            assert_eq!(guest.query_gid(guest.gid()), Err(Status::Err));
            guest.doorbell.notify();
        }
        drop(guest);
        let lines = daemon.log();
        let refusals: Vec<_> = lines.iter().filter(|line| line.contains("cannot map")).collect();
        assert_eq!(refusals.len(), 1, "{without:?}: {lines:#?}");
        assert!(lines.len() < 6, "{without:?}: {lines:#?}");
    }
}

#[test]
fn a_guest_that_resets_its_device_without_end_does_not_fill_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let daemon = Daemon::start(PROGRAM.command().args([Path::new("--socket-path"), &path]));
    await_socket(&path);
    let mut guest = boot(&path);
    for _ in 0..50 {
        guest.reset();
    }
    drop(guest);
    let lines = daemon.log();
    for text in ["a: driver is up", "a: driver is down"] {
        let count = lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(count, 10, "{text}: {lines:#?}");
    }
}

#[test]
fn memory_that_is_truncated_costs_its_guest_the_connection_and_nobody_else_anything() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
    let daemon =
        Daemon::start(
            PROGRAM
                .command()
                .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b]),
        );
    let mut other = boot(&b);
    await_socket(&a);
    let unsealed = || Options {
        unsealed: true,
        ..Options::default()
    };
    let mut guest = TestGuest::connect(&a, unsealed());
    guest.start();
    guest.ping();
    guest.ram.truncate();
    guest.control.notify();
    drop(guest);
    // Truncated before the daemon learns of it.
    let mut guest = TestGuest::connect(&a, unsealed());
    guest.ram.truncate();
    let _ = guest.try_launch([0; NUM_QUEUES]);
    drop(guest);
    other.ping();
    // The socket still serves.
    boot(&a).ping();
    drop(other);
    let lines = daemon.log();
    let warnings = lines
        .iter()
        .filter(|line| line.contains("a: memory of the guest is gone"));
    assert!((1..=2).contains(&warnings.count()), "{lines:#?}");
}

/// A daemon out of descriptors keeps serving its connections, and accepts the next as soon as it can.
#[test]
fn a_vmm_that_cannot_be_accepted_is_served_later() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
    let daemon =
        Daemon::start(
            PROGRAM
                .command()
                .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b]),
        );
    let mut first = boot(&a);
    await_socket(&b);
    let pid = Some(daemon.pid());
    let descriptors = |n: u64| {
        let limit = Rlimit {
            current: Some(n),
            maximum: Some(1024),
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    descriptors(4);
    // The daemon may hold a descriptor for one more connection, but for nothing beyond that: such a connection is lost.
    let mut lost = UnixStream::connect(&b).unwrap();
    lost.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = lost.read(&mut [0]);
    drop(lost);
    let second = std::thread::spawn(move || boot(&b));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!second.is_finished());
    first.ping();
    descriptors(1024);
    second.join().unwrap().ping();
    drop(first);
    let lines = daemon.log();
    let warnings = lines.iter().filter(|line| line.contains("cannot serve a connection"));
    assert_eq!(warnings.count(), 1, "{lines:#?}");
}

#[test]
fn an_attachment_that_is_left_fails_the_daemon_if_asked_to() {
    for (kinds, expected) in [
        (
            "finding=attachment_left",
            Some("error: findings: b: attachment_left (1)"),
        ),
        ("all", Some("error: findings: b: attachment_left (1)")),
        ("any", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
        let daemon = Daemon::start(
            PROGRAM
                .command()
                .args([Path::new("--socket-path"), &a, Path::new("--socket-path"), &b])
                .arg("--stats-socket")
                .arg(&stats)
                .args(["--fail-on", kinds]),
        );
        let (_a, mut second) = meet(&a, &b);
        // The driver is unloaded without DETACH.
        second.stop();
        eventually("the session ends", || read_stats(&stats)["fabric"]["sessions"] == 1);
        kill_process(daemon.pid(), Signal::TERM).unwrap();
        let (code, text) = daemon.fail();
        // The sessions that end with the daemon are logged meanwhile.
        let error = text.lines().find(|line| line.starts_with("error: "));
        match expected {
            Some(_) => assert_eq!((code, error), (Some(1), expected), "{text}"),
            None => assert_eq!(code, Some(0), "{text}"),
        }
    }
}
