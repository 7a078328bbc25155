//! A daemon as a process.

use std::fs;
use std::io::Read;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::eventually;

/// The binary of a daemon. Tests name it by `env!("CARGO_BIN_EXE_...")`.
#[derive(Clone, Copy)]
pub struct Program(pub &'static str);

impl Program {
    /// Returns a command without arguments, with default logging and without input.
    pub fn command(self) -> Command {
        let mut command = Command::new(self.0);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Returns a command that passes sockets as a service manager does (sd_listen_fds(3)).
    pub fn activated(self, sockets: &[OwnedFd]) -> Command {
        // Higher than the numbers that they get, from 3 on.
        let passed = sockets.iter().map(|socket| {
            let high = fcntl_dupfd_cloexec(socket, 3 + sockets.len() as RawFd).expect("a descriptor");
            fcntl_setfd(&high, FdFlags::empty()).expect("it is open");
            high.into_raw_fd()
        });
        let redirections: Vec<String> = passed
            .zip(3..)
            .map(|(high, low)| format!("{low}<&{high} {high}<&-"))
            .collect();
        let script = format!("exec {}; LISTEN_PID=$$ exec \"$@\"", redirections.join(" "));
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", self.0]).env_remove("RUST_LOG");
        command
            .env("LISTEN_FDS", sockets.len().to_string())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("the program can be run")
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: Option<JoinHandle<String>>,
}

impl Daemon {
    /// Starts a daemon. Its log is read all the time, as a full pipe would block its threads, and returned by
    /// [`Daemon::log`] and [`Daemon::fail`].
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program can be started");
        let mut stderr = child.stderr.take().expect("it is piped");
        let log = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).expect("the log can be read");
            String::from_utf8(text).expect("the log is text")
        });
        Self { child, log: Some(log) }
    }

    /// Starts a daemon that logs to a descriptor of the test.
    pub fn start_with_log(command: &mut Command, log: impl Into<Stdio>) -> Self {
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let child = child.expect("the program can be started");
        Self { child, log: None }
    }

    /// Returns the process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends the daemon with a signal; returns its exit code and the time it took.
    #[track_caller]
    pub fn end(mut self, signal: Signal) -> (Option<i32>, Duration) {
        let start = Instant::now();
        kill_process(self.pid(), signal).expect("the daemon runs");
        let mut status = None;
        eventually("the daemon ends", || {
            status = self.child.try_wait().expect("the daemon is a child");
            status.is_some()
        });
        (status.and_then(|status| status.code()), start.elapsed())
    }

    /// Ends the daemon with SIGTERM; returns the lines it logged.
    ///
    /// # Panics
    ///
    /// Panics if the exit code is not 0.
    #[track_caller]
    pub fn log(mut self) -> Vec<String> {
        let log = self.log.take().expect("the log is a pipe, and taken once");
        assert_eq!(self.end(Signal::TERM).0, Some(0));
        let text = log.join().expect("the log can be read");
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Waits until the daemon fails by itself; returns its exit code and the text it wrote.
    pub fn fail(mut self) -> (Option<i32>, String) {
        let log = self.log.take().expect("the log is a pipe, and taken once");
        let text = log.join().expect("the log can be read");
        (self.child.wait().expect("the daemon is a child").code(), text)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a process listens on a socket, which happens a little after the file appears.
#[track_caller]
pub fn await_socket(path: &Path) {
    let path = path.to_str().expect("the path is text");
    eventually("a process listens on the socket", || {
        let sockets = fs::read_to_string("/proc/net/unix").expect("/proc is mounted");
        sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // __SO_ACCEPTCON
            fields.get(3) == Some(&"00010000") && fields.last() == Some(&path)
        })
    });
}

/// Reads the document of a stats socket.
#[track_caller]
pub fn read_stats(path: &Path) -> Value {
    let mut text = String::new();
    let mut socket = UnixStream::connect(path).expect("the stats socket is served");
    socket.read_to_string(&mut text).expect("the document is text");
    assert!(text.ends_with('\n'));
    serde_json::from_str(&text).expect("the document is JSON")
}

/// Returns whether a directory is empty.
pub fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("the directory can be read").next().is_none()
}
