//! Errors of the harness.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};

use guest_agent::Exit;
use thiserror::Error as ThisError;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of a testbed, a guest or a command.
///
/// `Debug` prints the text of `Display` and of all sources, because that is the output of a test that returns an error.
#[derive(ThisError)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {doing}")]
    Io {
        /// The attempted operation.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// The result of a build step is missing.
    #[error("{what} not found at {path}: {hint}", path = .path.display())]
    Missing {
        /// Description of the file.
        what: String,
        /// Expected path.
        path: PathBuf,
        /// The command that builds it.
        hint: String,
    },
    /// A file has invalid content.
    #[error("{path} is malformed: {reason}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Description of the defect.
        reason: String,
    },
    /// A deadline passed.
    #[error("timed out after {after:?} waiting for {what}")]
    Timeout {
        /// The awaited event.
        what: String,
        /// Length of the wait.
        after: Duration,
    },
    /// A command in a guest failed.
    #[error("in guest {guest}, `{command}` failed: {exit}\n--- stdout\n{stdout}--- stderr\n{stderr}---")]
    Command {
        /// The guest's name.
        guest: String,
        /// The command.
        command: String,
        /// Exit status.
        exit: Exit,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// A command in a guest exceeded its time limit and was killed.
    #[error("`{command}` was killed after {after:?}\n--- stdout so far\n{stdout}--- stderr so far\n{stderr}---")]
    CommandTimeout {
        /// The command.
        command: String,
        /// Time limit.
        after: Duration,
        /// Standard output until then.
        stdout: String,
        /// Standard error until then.
        stderr: String,
    },
    /// The agent in the guest refused a request.
    #[error("the guest's agent refused: {0}")]
    Agent(String),
    /// An operation was lost with the guest or with the connection to it.
    #[error("{what} was cut off: {why}")]
    Lost {
        /// The operation.
        what: String,
        /// The cause.
        why: String,
    },
    /// The guest's kind of machine does not support the operation.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// QEMU answered a monitor command with an error.
    #[error("QEMU refused {command}: {reason}")]
    Qmp {
        /// The command.
        command: String,
        /// QEMU's description of the error.
        reason: String,
    },
    /// A daemon or its program refused a command of the control socket.
    #[error("`{command}` failed: {reason}")]
    Control {
        /// The command.
        command: String,
        /// Reason that the program gave.
        reason: String,
    },
    /// A sweep cannot begin.
    #[error("cannot sweep: {0}")]
    Sweep(String),
    /// A process ended unexpectedly.
    #[error("{name} has ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// Name of the process.
        name: String,
        /// Exit status.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The guest was killed by the test and is not running.
    #[error("guest {0} is not running")]
    NotRunning(String),
    /// Unexpected kernel splats.
    #[error("guest {guest} printed kernel splats:\n{splats}")]
    Splats {
        /// The guest's name.
        guest: String,
        /// The splats.
        splats: String,
    },
    /// The driver of a device under test logged warnings.
    #[error("driver warnings in guest {guest}:\n{messages}")]
    DriverComplaints {
        /// The guest's name.
        guest: String,
        /// The warnings.
        messages: String,
    },
    /// A daemon panicked.
    #[error("the log of {name} shows a panic: {line}")]
    Panicked {
        /// Name of the daemon.
        name: String,
        /// The line of the log.
        line: String,
    },
    /// An error about one guest, with evidence.
    #[error("guest {guest}: {}{evidence}", chain(.error))]
    Guest {
        /// The guest's name.
        guest: String,
        /// The error.
        error: Box<Error>,
        /// The end of its console log, and of QEMU's log, if any.
        evidence: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// Formats an error with all its sources.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Adds the attempted operation to an I/O error.
pub(crate) trait Doing<T> {
    /// Converts the error to [`Error::Io`]; `what` completes "cannot ...".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io {
            doing: what(),
            source: error.into(),
        })
    }
}
