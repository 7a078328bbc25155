//! The daemon under a service manager that has created its sockets.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::Command;

use mlx5_test_driver::vfio_user::boot;
use rustix::process::Signal;
use vhost_daemon::testing::{Daemon, read_stats};

use crate::PROGRAM;

/// The MAC address of the guest of this number.
fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0xc5, number]
}

#[test]
fn guest_after_guest_and_daemon_after_daemon_on_the_same_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let listeners = [&b, &stats, &a].map(|path| OwnedFd::from(UnixListener::bind(path).unwrap()));
    for round in 0..2 {
        let mut command = PROGRAM.activated(&listeners);
        command.arg("--socket-activation").arg("--stats-socket").arg(&stats);
        command.args(["--guest", &format!("path={},blue-flame=on", a.display())]);
        let daemon = Daemon::start(&mut command);
        // Guests are numbered in the order in which the sockets are passed. A connection waits for the daemon.
        let mut second = boot(&a, mac(2));
        for guest in 0..2 {
            let mut first = boot(&b, mac(1));
            first.send_to(&mut second, 16 * round + guest);
            second.send_to(&mut first, 16 * round + guest);
            match guest {
                // The first leaves all that it has set up.
                0 => drop(first),
                _ => first.shut_down(),
            }
        }
        let seen = read_stats(&stats);
        let names: Vec<&str> = seen["guests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|guest| guest["guest"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(seen["guests"][0]["attachment"]["vfio_user"]["connections"], 2);
        second.shut_down();
        assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    }
    for path in [&a, &b, &stats] {
        assert!(path.exists(), "the service manager removes it");
    }
}

#[test]
fn sockets_that_no_guest_can_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let refused = |command: &mut Command| {
        let (code, text) = Daemon::start(command.arg("--socket-activation")).fail();
        assert_eq!(code, Some(1));
        text
    };
    assert_eq!(
        refused(&mut PROGRAM.command()),
        "error: the service manager has passed no socket (LISTEN_FDS)\n"
    );
    let unsuitable = "error: socket 3 of the service manager is not a listening stream socket with a path\n";
    let datagram = UnixDatagram::bind(&path).unwrap();
    assert_eq!(refused(&mut PROGRAM.activated(&[datagram.into()])), unsuitable);
    fs::remove_file(&path).unwrap();
    let name = SocketAddr::from_abstract_name(path.as_os_str().as_encoded_bytes()).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    assert_eq!(refused(&mut PROGRAM.activated(&[listener.into()])), unsuitable);
    let listener = UnixListener::bind(&path).unwrap();
    let twice = refused(PROGRAM.activated(&[listener.into()]).arg("--socket-path").arg(&path));
    assert_eq!(
        twice,
        format!("error: two guests cannot share the socket {}\n", path.display())
    );
}
