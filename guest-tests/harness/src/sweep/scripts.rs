//! Workloads that are scripts of a guest.

use std::time::Duration;

use guest_agent::Exit;

use super::Workload;
use crate::error::Result;
use crate::guest::Guest;

/// Exit status of timeout(1) at its limit.
const TIMED_OUT: i32 = 124;
/// Time beyond its limit after which a script is given up: one that waits in the kernel cannot be killed.
const KILL_TIME: Duration = Duration::from_secs(3);

/// Scripts of a guest, without single quotes.
pub struct Scripts<'a> {
    /// The guest.
    pub guest: &'a Guest,
    /// Script of the workload.
    pub run: &'a str,
    /// Script that undoes it.
    pub undo: &'a str,
    /// Limit on the time of a script.
    pub limit: Duration,
    /// Makes the guest ready after a restart.
    pub set_up: &'a dyn Fn() -> Result<()>,
}

impl Scripts<'_> {
    fn script(&self, script: &str) -> Option<i32> {
        let limited = format!("timeout -k 1 {} bash -c '{script}'", self.limit.as_secs());
        match self
            .guest
            .shell(&limited)
            .timeout(self.limit + KILL_TIME)
            .run()
            .ok()?
            .status
        {
            Exit::Code(TIMED_OUT) => None,
            Exit::Code(status) => Some(status),
            Exit::Signal(signal) => Some(128 + signal),
        }
    }
}

impl Workload for Scripts<'_> {
    fn run(&self) -> Option<i32> {
        self.script(self.run)
    }

    fn undo(&self) -> Option<i32> {
        self.script(self.undo)
    }

    fn take_log(&self) -> String {
        match self.guest.run("dmesg --read-clear") {
            Ok(output) => output.stdout,
            Err(_) => self.guest.console().text(),
        }
    }

    fn restore(&self) -> Result<()> {
        self.guest.restart()?;
        (self.set_up)()
    }
}
