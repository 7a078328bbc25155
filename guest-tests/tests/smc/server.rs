//! The `smc-tool` server of workloads.

use std::time::Duration;

use guest_harness::{Guest, Job, Output, Result};
use serde_json::Value;

/// SIGTERM.
pub const TERM: i32 = 15;

/// A server of workloads in one guest.
#[derive(Debug)]
pub struct Server {
    job: Job,
}

impl Server {
    /// Starts the server and waits, at most for `timeout`, until it listens.
    pub fn start(guest: &Guest, port: u16, options: &str, timeout: Duration) -> Result<Self> {
        let job = guest.spawn(&format!("exec /host/smc-tool --json serve --port {port} {options}"))?;
        job.wait_line("ready", timeout)?;
        Ok(Self { job })
    }

    /// Returns the ended connections so far, if started with `--events`.
    pub fn ends(&self) -> Vec<Value> {
        let (stdout, _) = self.job.peek();
        // The last line may be incomplete.
        let complete = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
        complete
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).expect("events are JSON"))
            .collect()
    }

    /// Stops the server; asserts that it received no wrong data.
    pub fn stop(self, timeout: Duration) -> Result<()> {
        self.job.kill(TERM);
        let report = last_value(&self.job.wait(timeout)?.check()?);
        assert_eq!(report["mismatches"], 0, "{report}");
        Ok(())
    }
}

/// Parses the last output line as JSON; null if it is not.
pub fn last_value(out: &Output) -> Value {
    let line = out.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_default()
}
