//! Workloads of `smc-tool` between two guests, with the mode and the devices of each connection checked.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use guest_harness::{Job, Result};
use serde_json::Value;

use crate::fixture::{Fixture, PORT};
use crate::server::{TERM, last_value};

/// Limit on a workload. One that hangs fails earlier, as each wait in it has a limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);

/// A workload that runs until stopped.
#[derive(Debug)]
pub struct Running {
    pub from: usize,
    pub workload: String,
    gids: [String; 2],
    job: Job,
}

impl Running {
    /// Waits for the end of the workload, for whatever reason, and returns its report; asserts that the mode is right.
    pub fn end(self, timeout: Duration) -> Result<Value> {
        let out = self.job.wait(timeout)?;
        let report = last_value(&out);
        assert!(!report.is_null(), "no report: {out}");
        assert_smcd(&report["connection"]["socket"], &self.gids);
        Ok(report)
    }

    /// Returns whether the workload has ended.
    pub fn is_finished(&self) -> bool {
        self.job.is_finished()
    }

    /// Stops the workload; asserts that it had not ended before.
    pub fn stop(self, timeout: Duration) -> Result<Value> {
        assert!(!self.job.is_finished(), "{self:?} has ended");
        self.job.kill(TERM);
        let report = self.end(timeout)?;
        assert_eq!(report["end"], "signal", "{report}");
        Ok(report)
    }
}

impl Fixture {
    /// Runs a workload from one guest to another and returns its report.
    pub fn call(&self, from: usize, to: usize, workload: &str) -> Result<Value> {
        let address = self.guest(to).addr(from);
        self.call_at(from, to, (address.into(), PORT), workload)
    }

    /// Runs a workload with the server at a given address of the other guest.
    pub fn call_at(&self, from: usize, to: usize, (address, port): (IpAddr, u16), workload: &str) -> Result<Value> {
        let address = SocketAddr::new(address, port);
        let out = self
            .guest(from)
            .shell(&self.command(workload, address))
            .timeout(CALL_TIMEOUT)
            .run()?
            .check()?;
        let report = last_value(&out);
        let gids = [self.gid(from)?, self.gid(to)?];
        let connections = report["connections"].as_u64();
        self.ledger().enter([from, to], connections.unwrap_or(1));
        match connections {
            Some(connections) => {
                assert_eq!(report["modes"]["smcd"], connections, "{report}");
                assert_eq!(report["fallbacks"], 0, "{report}");
                let sockets = report["sockets"].as_array().expect("the sockets");
                assert_eq!(sockets.len() as u64, connections, "{report}");
                sockets.iter().for_each(|socket| assert_smcd(socket, &gids));
            }
            None => assert_smcd(&report["connection"]["socket"], &gids),
        }
        Ok(report)
    }

    /// Starts `hold` or `load` and waits for its connection.
    pub fn run(&self, from: usize, to: usize, workload: &str) -> Result<Running> {
        let gids = [self.gid(from)?, self.gid(to)?];
        let address = SocketAddr::new(self.guest(to).addr(from).into(), PORT);
        let command = format!("exec {}", self.command(workload, address));
        let job = self.guest(from).spawn(&command)?;
        job.wait_line("ready smcd", self.seconds(20))?;
        self.ledger().enter([from, to], 1);
        Ok(Running {
            from,
            workload: workload.to_owned(),
            gids,
            job,
        })
    }

    /// Asserts that a guest has at least `at_least` connections with the port at either end, all SMC-D with these
    /// peers.
    pub fn assert_connections(&self, index: usize, port: u16, peers: &[usize], at_least: usize) -> Result<()> {
        let mine = self.gid(index)?;
        let peers = peers.iter().map(|&peer| self.gid(peer)).collect::<Result<Vec<_>>>()?;
        let sockets = self.sockets(index)?;
        let connections: Vec<_> = sockets
            .iter()
            .filter(|socket| socket["state"] == "active")
            .filter(|socket| {
                [&socket["local_port"], &socket["peer_port"]]
                    .into_iter()
                    .any(|at| at == port)
            })
            .collect();
        for socket in &connections {
            assert_eq!(socket["mode"], "smcd", "{socket}");
            assert_eq!(socket["dmb"]["my_gid"], mine, "{socket}");
            assert!(peers.iter().any(|gid| socket["dmb"]["peer_gid"] == *gid), "{socket}");
        }
        let count = connections.len();
        assert!(
            count >= at_least,
            "{count} connections at port {port} among {sockets:?}"
        );
        Ok(())
    }

    /// Waits until a program listens on a port with an SMC socket.
    pub fn wait_listening(&self, index: usize, port: u16) -> Result<()> {
        let deadline = Instant::now() + self.seconds(20);
        loop {
            let sockets = self.sockets(index)?;
            if sockets
                .iter()
                .any(|socket| socket["state"] == "listen" && socket["local_port"] == port)
            {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "no program listens on {port}: {sockets:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns all SMC sockets of a guest.
    pub fn sockets(&self, index: usize) -> Result<Vec<Value>> {
        let out = self.guest(index).run("/host/smc-tool --json sockets")?.check()?;
        Ok(serde_json::from_str(out.text()).expect("the sockets are JSON"))
    }

    fn command(&self, workload: &str, address: SocketAddr) -> String {
        let timeout = self.seconds(30).as_secs();
        // Reports each of many connections.
        let each = if workload.starts_with("connections") {
            "--each"
        } else {
            ""
        };
        format!("/host/smc-tool --json {workload} {each} --to {address} --expect-mode smcd --timeout {timeout}")
    }
}

/// Asserts that a socket is SMC-D between the devices `gids`: local, then peer.
pub fn assert_smcd(socket: &Value, gids: &[String; 2]) {
    assert_eq!(socket["mode"], "smcd", "{socket}");
    let found = [&socket["dmb"]["my_gid"], &socket["dmb"]["peer_gid"]];
    assert_eq!(found, [&gids[0], &gids[1]], "{socket}");
}
