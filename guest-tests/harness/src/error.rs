//! What can go wrong.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};

use guest_agent::Exit;
use thiserror::Error as ThisError;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a bed, a guest or a command did not do what was asked.
///
/// `Debug` prints the same sentences as `Display`, with the causes: it is what a test that returns an error shows.
#[derive(ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("could not {doing}")]
    Io {
        /// What was attempted.
        doing: String,
        /// The refusal.
        source: io::Error,
    },
    /// Something that a build step should have made is not there.
    #[error("{what} is not at {path}: {hint}", path = .path.display())]
    Missing {
        /// What it is.
        what: String,
        /// Where it was looked for.
        path: PathBuf,
        /// How to get it.
        hint: String,
    },
    /// A file has the wrong content.
    #[error("{path} is not understood: {reason}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something did not happen in time.
    #[error("waited {after:?} in vain for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A command in a guest failed.
    #[error("in guest {guest}, `{command}` failed: {exit}\n--- stdout\n{stdout}--- stderr\n{stderr}---")]
    Command {
        /// The guest's name.
        guest: String,
        /// The command.
        command: String,
        /// How it ended.
        exit: Exit,
        /// What it printed.
        stdout: String,
        /// What it printed as errors.
        stderr: String,
    },
    /// A command in a guest took too long and was killed.
    #[error(
        "`{command}` still ran after {after:?} and was killed\n--- stdout so far\n{stdout}--- stderr so far\n{stderr}---"
    )]
    CommandTimeout {
        /// The command.
        command: String,
        /// How long it was given.
        after: Duration,
        /// What it had printed.
        stdout: String,
        /// What it had printed as errors.
        stderr: String,
    },
    /// The agent in the guest could not do what was asked.
    #[error("the guest's agent refused: {0}")]
    Agent(String),
    /// What was under way in the guest is gone with the guest, or with the connection to it.
    #[error("{what} was cut off: {why}")]
    Lost {
        /// What was under way.
        what: String,
        /// What happened.
        why: String,
    },
    /// The guest's kind of machine cannot do what was asked.
    #[error("not possible here: {0}")]
    Unsupported(&'static str),
    /// QEMU answered a command with an error.
    #[error("QEMU refused {command}: {reason}")]
    Qmp {
        /// The command.
        command: String,
        /// QEMU's explanation.
        reason: String,
    },
    /// A process ended that should run.
    #[error("{name} has ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// Which process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The guest does not run, because the test killed it.
    #[error("guest {0} is not running")]
    NotRunning(String),
    /// Kernel splats that were not expected.
    #[error("guest {guest} printed kernel splats:\n{splats}")]
    Splats {
        /// The guest's name.
        guest: String,
        /// The splats.
        splats: String,
    },
    /// The driver of a device under test warned about it.
    #[error("guest {guest}'s driver complains:\n{messages}")]
    DriverComplaints {
        /// The guest's name.
        guest: String,
        /// The driver's messages.
        messages: String,
    },
    /// A daemon's log shows that something is wrong with it.
    #[error("the log of {name} shows a panic: {line}")]
    Panicked {
        /// Which daemon.
        name: String,
        /// The line.
        line: String,
    },
    /// Something about one guest, with what may explain it.
    #[error("guest {guest}: {}{evidence}", chain(.error))]
    Guest {
        /// The guest's name.
        guest: String,
        /// What went wrong.
        error: Box<Error>,
        /// The end of its console, and of QEMU's log if there is one.
        evidence: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Says what an I/O error was about.
pub(crate) trait Doing<T> {
    /// Wraps an error with what was attempted.
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
