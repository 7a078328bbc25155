//! The control socket of a daemon, through the command of the daemon's own program.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{Doing, Error, Result};

/// A client of the control socket of a daemon.
#[derive(Debug, Clone)]
pub struct DaemonControl {
    program: PathBuf,
    socket: PathBuf,
}

impl DaemonControl {
    /// Creates a client of `socket`, which the daemon of `program` serves.
    pub fn new(program: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            socket: socket.into(),
        }
    }

    /// Runs a command of the program: its name, and its arguments behind the control socket. Returns its output.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        self.run_with_input(name, arguments, "")
    }

    /// Runs `ctl` and returns its result.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        self.ctl_with_input(arguments, "")
    }

    /// Puts a plan of faults in TOML in force; an empty one ends all faults.
    pub fn apply(&self, plan: &str) -> Result<()> {
        self.ctl_with_input(&["faults", "--plan", "/dev/stdin"], plan).map(drop)
    }

    /// Returns the rules in force, each with what it has struck.
    pub fn faults(&self) -> Result<Vec<Value>> {
        match self.ctl(&["faults"])? {
            Value::Array(rules) => Ok(rules),
            other => Err(self.refusal("ctl", other.to_string())),
        }
    }

    /// Returns the number of strikes of all rules in force.
    pub fn strikes(&self) -> Result<u64> {
        let rules = self.faults()?;
        Ok(rules.iter().filter_map(|rule| rule["strikes"].as_u64()).sum())
    }

    fn ctl_with_input(&self, arguments: &[&str], input: &str) -> Result<Value> {
        let text = self.run_with_input("ctl", &[&["--json"], arguments].concat(), input)?;
        serde_json::from_slice(&text).map_err(|error| self.refusal("ctl", error.to_string()))
    }

    fn run_with_input(&self, name: &str, arguments: &[&str], input: &str) -> Result<Vec<u8>> {
        let doing = || format!("run {} {name}", self.program.display());
        let mut command = Command::new(&self.program);
        command
            .arg(name)
            .arg("--control-socket")
            .arg(&self.socket)
            .args(arguments);
        let pipes = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = pipes.spawn().doing(doing)?;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that refuses its arguments reads nothing.
            let _ = pipe.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().doing(doing)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(self.refusal(&[&[name], arguments].concat().join(" "), reason))
    }

    fn refusal(&self, command: &str, reason: String) -> Error {
        let program = self.program.file_name().unwrap_or_default().to_string_lossy();
        Error::Control {
            command: format!("{program} {command}"),
            reason,
        }
    }
}
