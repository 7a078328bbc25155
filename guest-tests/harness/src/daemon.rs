//! A device daemon under test.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;

use crate::deadline::Deadline;
use crate::error::{Doing, Error, Result};
use crate::process::Process;

const LISTEN_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const STATS_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running daemon; dropping it kills the process.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    stats_socket: Option<PathBuf>,
}

impl Daemon {
    /// Starts `command` and waits until it listens on `sockets` and on `stats_socket`, if any.
    pub fn start(
        name: &str,
        command: Command,
        log: &Path,
        sockets: &[PathBuf],
        stats_socket: Option<PathBuf>,
    ) -> Result<Self> {
        let process = Process::spawn(name, command, log, Vec::new())?;
        let deadline = Deadline::after(LISTEN_TIMEOUT);
        let mut missing: Vec<&PathBuf> = sockets.iter().chain(&stats_socket).collect();
        loop {
            let table = fs::read_to_string("/proc/net/unix").doing(|| "read /proc/net/unix".to_owned())?;
            missing.retain(|path| !is_listening(&table, path));
            let Some(path) = missing.first() else { break };
            process.check()?;
            if deadline.left().is_none() {
                return Err(deadline.missed(format!("{name} to listen on {}", path.display())));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(Self { process, stats_socket })
    }

    /// Returns whether the process is running.
    pub fn alive(&self) -> bool {
        self.process.status().is_none()
    }

    /// Returns the process of the daemon.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.process.log()).unwrap_or_default()).into_owned()
    }

    /// Kills the daemon, to test how guests cope.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Reads the statistics socket.
    pub fn stats(&self) -> Result<Value> {
        self.process.check()?;
        let name = self.process.name();
        let Some(path) = &self.stats_socket else {
            return Err(Error::Agent(format!("{name} has no statistics socket")));
        };
        let doing = || format!("read the statistics of {name} from {}", path.display());
        let stream = UnixStream::connect(path).doing(doing)?;
        stream.set_read_timeout(Some(STATS_TIMEOUT)).doing(doing)?;
        // One JSON value is the answer, whether or not the daemon then closes the connection.
        let mut deserializer = serde_json::Deserializer::from_reader(stream);
        Value::deserialize(&mut deserializer)
            .map_err(io::Error::from)
            .doing(doing)
    }

    /// Fails if the daemon has ended or its log shows a panic.
    pub(crate) fn check(&self) -> Result<()> {
        self.process.check()?;
        match self.log().lines().find(|line| line.contains("panicked at")) {
            None => Ok(()),
            Some(line) => Err(Error::Panicked {
                name: self.process.name().to_owned(),
                line: line.to_owned(),
            }),
        }
    }

    /// Sends SIGTERM and waits for the daemon to end; fails if it ends with an error.
    pub(crate) fn stop(&self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        match self.process.wait(STOP_TIMEOUT)? {
            status if status.success() => Ok(()),
            _ => self.process.check(),
        }
    }
}

/// Returns whether a process listens on a Unix socket, by the kernel's socket table. Connecting is no option, as a
/// daemon takes the first connection for its guest.
fn is_listening(table: &str, path: &Path) -> bool {
    const ACCEPTS_CONNECTIONS: u32 = 0x10000;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let flags = fields.get(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        fields.get(7).is_some_and(|name| Path::new(name) == path)
            && flags.is_some_and(|flags| flags & ACCEPTS_CONNECTIONS != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn listening_sockets_are_recognised() {
        let path = std::env::temp_dir().join(format!("guest-tests-listen-{}", std::process::id()));
        let table = || fs::read_to_string("/proc/net/unix").unwrap();
        assert!(!is_listening(&table(), &path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening(&table(), &path));
        drop(listener);
        assert!(!is_listening(&table(), &path));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_daemon_that_dies_at_once_is_reported_with_its_words() {
        let log = std::env::temp_dir().join(format!("guest-tests-daemon-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag >&2; exit 2"]);
        let missing = [PathBuf::from("/no/such/socket")];
        let error = Daemon::start("the daemon", command, &log, &missing, None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no such flag") && text.contains("exit status: 2"),
            "{text}"
        );
        fs::remove_file(log).unwrap();
    }
}
