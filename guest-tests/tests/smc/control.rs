//! The control socket of the daemon, through the program's own command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_harness::IsmOptions;
use serde_json::Value;

/// The path of the control socket.
pub struct Control(pub PathBuf);

impl Control {
    /// Runs the program's `ctl` command and returns its result.
    fn ctl(&self, words: &[&str]) -> Value {
        let mut command = Command::new(IsmOptions::program().expect("the daemon is built"));
        command.arg("ctl").arg("--control-socket").arg(&self.0).arg("--json");
        let output = command.args(words).output().expect("ctl runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("ctl prints JSON")
    }

    /// Puts a plan of faults in force.
    pub fn apply(&self, logs: &Path, plan: &str) {
        let path = logs.join("plan.toml");
        fs::write(&path, plan).expect("write the plan");
        self.ctl(&["faults", "--plan", &path.display().to_string()]);
    }

    /// Strikes of the first fault in force.
    pub fn strikes(&self) -> u64 {
        let rules = self.ctl(&["faults"]);
        rules[0]["strikes"].as_u64().expect("a count")
    }

    /// Findings of one kind so far.
    pub fn findings(&self, kind: &str) -> Vec<Value> {
        let all = self.ctl(&["findings"]);
        let all = all.as_array().expect("a list of findings");
        all.iter()
            .filter(|finding| finding["finding"] == kind)
            .cloned()
            .collect()
    }
}
