//! A daemon under a service manager.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::{Signal, kill_process};

use super::{Daemon, PATIENCE, Program};

/// Starts a daemon under a service manager with a watchdog, in an empty directory, and asserts that it reports when it
/// is ready, that it is alive, and its end.
///
/// # Panics
///
/// Panics if it reports anything else.
#[track_caller]
pub fn assert_notifies(program: Program, directory: &Path) {
    let path = directory.join("notify");
    let socket = UnixDatagram::bind(&path).expect("the directory is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    let receive = || {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).expect("the daemon notifies");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let environment = [
        ("NOTIFY_SOCKET", path.as_os_str()),
        ("WATCHDOG_USEC", "100000".as_ref()),
    ];
    let mut command = program.command();
    command.arg("--socket-path").arg(directory.join("a.sock"));
    let daemon = Daemon::start(command.envs(environment).env_remove("WATCHDOG_PID"));
    assert_eq!(receive(), "READY=1");
    for _ in 0..3 {
        assert_eq!(receive(), "WATCHDOG=1");
    }
    kill_process(daemon.pid(), Signal::TERM).expect("the daemon runs");
    let last = std::iter::repeat_with(receive).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(daemon.fail().0, Some(0));
}
