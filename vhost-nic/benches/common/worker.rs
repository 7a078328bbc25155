//! CPU time of a NIC's thread.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Name of the thread that sends for the first guest.
const SENDER: &str = "nic1";

/// CPU time of the sending NIC's thread (`schedstat`).
pub struct Worker(PathBuf);

impl Worker {
    /// Finds the thread by its name.
    pub fn find() -> Self {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let named = tasks.map(|task| task.unwrap().path()).find(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            name.trim() == SENDER
        });
        Self(named.expect("the NIC has a thread").join("schedstat"))
    }

    /// CPU time so far.
    fn busy(&self) -> Duration {
        let stat = fs::read_to_string(&self.0).unwrap();
        let nanoseconds = stat.split_whitespace().next().unwrap();
        Duration::from_nanos(nanoseconds.parse().unwrap())
    }

    /// CPU time spent while `act` runs.
    pub fn time(&self, act: impl FnOnce()) -> Duration {
        let before = self.busy();
        act();
        self.busy() - before
    }
}
