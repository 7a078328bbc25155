//! An `smc-tool serve` on this host, over TCP, and its clients.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// Returns a command that runs the program.
pub fn smc_tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_smc-tool"))
}

/// A server, killed when dropped.
pub struct Server {
    child: Child,
    /// Addresses of the `ready` line.
    pub addresses: Vec<String>,
}

impl Server {
    /// Starts a server on a free port of the loopback addresses.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = smc_tool()
            .args(["serve", "--port", "0", "--proto", "tcp", "--bind", "127.0.0.1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // The pipe stays open so that the server can print its report.
        std::thread::spawn(move || output.lines().for_each(drop));
        let addresses = line
            .strip_prefix("ready ")
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        Self { child, addresses }
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: rustix::process::Signal) -> ExitStatus {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a client of the server at `to`, over TCP.
pub fn client(to: &str, arguments: &[&str]) -> Command {
    let mut command = smc_tool();
    command.args(arguments).args(["--json", "--proto", "tcp", "--to", to]);
    if !arguments.contains(&"--timeout") {
        command.args(["--timeout", "20"]);
    }
    command
}

/// Runs a client to completion.
pub fn run(to: &str, arguments: &[&str]) -> Output {
    client(to, arguments).output().unwrap()
}

/// Runs a client that must succeed, and returns its report.
pub fn report(to: &str, arguments: &[&str]) -> serde_json::Value {
    let output = run(to, arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}
