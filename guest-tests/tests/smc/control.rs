//! The control socket of the daemon, through the program's own command.

use std::path::PathBuf;

use guest_harness::{DaemonControl, IsmOptions};
use serde_json::Value;

/// The control socket.
pub struct Control(DaemonControl);

impl Control {
    pub fn new(socket: PathBuf) -> Self {
        let program = IsmOptions::program().expect("the daemon is built");
        Self(DaemonControl::new(program, socket))
    }

    /// The socket by itself.
    pub fn daemon(&self) -> &DaemonControl {
        &self.0
    }

    /// Puts a plan of faults in force.
    pub fn apply(&self, plan: &str) {
        self.0.apply(plan).expect("the daemon takes the plan");
    }

    /// Strikes of all faults in force.
    pub fn strikes(&self) -> u64 {
        self.0.strikes().expect("the daemon reports its faults")
    }

    /// Findings so far.
    pub fn all_findings(&self) -> Vec<Value> {
        let all = self.0.ctl(&["findings"]).expect("the daemon reports its findings");
        all.as_array().expect("a list of findings").clone()
    }

    /// Findings of one kind so far.
    pub fn findings(&self, kind: &str) -> Vec<Value> {
        let mut all = self.all_findings();
        all.retain(|finding| finding["finding"] == kind);
        all
    }
}
