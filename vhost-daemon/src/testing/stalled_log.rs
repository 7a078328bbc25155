//! A daemon whose log nobody reads.

use std::io::pipe;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, write};
use rustix::process::Signal;

use super::{Daemon, Program, await_socket, read_stats};

/// Starts a daemon in an empty directory, with a full pipe as its standard error, and asserts that it serves guests and
/// operators as ever, and ends.
///
/// # Panics
///
/// Panics if it does not.
#[track_caller]
pub fn assert_needs_no_reader(program: Program, directory: &Path) {
    let (_reader, writer) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("it is open");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("it is open");
    while write(&writer, b"\n") != Err(Errno::AGAIN) {}
    fcntl_setfl(&writer, flags).expect("it is open");

    let [guest, stats] = ["a.sock", "stats.sock"].map(|name| directory.join(name));
    let mut command = program.command();
    command.arg("--socket-path").arg(&guest);
    let daemon = Daemon::start_with_log(command.arg("--stats-socket").arg(&stats), writer);
    await_socket(&guest);
    for _ in 0..10 {
        drop(UnixStream::connect(&guest).expect("the guest's socket is served"));
        read_stats(&stats);
    }
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}
