//! Evidence of what happened to a guest, added to the errors about it.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::artefacts::CommandLog;
use crate::console::Console;
use crate::error::Error;
use crate::process::{Process, tail};
use crate::sync::lock;

/// Lines of each log shown with an error.
const TAIL_LINES: usize = 25;

/// A guest's logs and its process.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    name: String,
    console: Console,
    qemu_log: PathBuf,
    process: Mutex<Option<Arc<Process>>>,
    commands: Arc<CommandLog>,
}

impl Diagnostics {
    pub(crate) fn new(name: &str, console: PathBuf, qemu_log: PathBuf, commands: Arc<CommandLog>) -> Self {
        Self {
            name: name.to_owned(),
            console: Console::new(console),
            qemu_log,
            process: Mutex::new(None),
            commands,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    pub(crate) fn commands(&self) -> &CommandLog {
        &self.commands
    }

    /// Replaces the process after the guest was started again.
    pub(crate) fn set_process(&self, process: Arc<Process>) {
        *lock(&self.process) = Some(process);
    }

    /// Adds the exit status and the last lines of the console and of QEMU's log to an error.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if matches!(error, Error::Guest { .. } | Error::Command { .. }) {
            return error;
        }
        let mut evidence = String::new();
        if let Some(status) = self.exit_status(&error) {
            evidence.push_str(&format!("\n--- {}'s QEMU has ended: {status}", self.name));
        }
        for (what, text) in [
            ("console", self.console.tail(TAIL_LINES)),
            ("QEMU", tail(&self.qemu_log, TAIL_LINES)),
        ] {
            if !text.trim().is_empty() {
                evidence.push_str(&format!("\n--- the end of {}'s {what} log\n", self.name));
                evidence.push_str(text.trim_end());
            }
        }
        Error::Guest {
            guest: self.name.clone(),
            error: Box::new(error),
            evidence,
        }
    }

    fn exit_status(&self, error: &Error) -> Option<ExitStatus> {
        let process = lock(&self.process).clone()?;
        // The connections may close shortly before the process is gone.
        if matches!(error, Error::Lost { .. }) {
            let _ = process.wait(Duration::from_millis(300));
        }
        process.status()
    }
}
