//! The daemon with the sockets of its guests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::vfio_user::VfioUserDevice;
use rustix::process::Signal;
use serde_json::Value;
use vhost_daemon::testing::{Daemon, Possessions, Program, await_socket, eventually, read_stats};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-nic"));

/// Socket and number of a guest.
#[derive(Debug, Clone)]
pub struct Seat {
    path: PathBuf,
    number: u8,
}

impl Seat {
    /// Plugs the NIC into a new machine.
    pub fn machine(&self) -> Machine {
        let mac = [0x52, 0x54, 0, 0, 0xc5, self.number];
        Machine::new(Arc::new(VfioUserDevice::connect(&self.path)), mac)
    }

    /// Boots a driver on a machine of this seat.
    pub fn boot(&self, machine: Machine) -> Node {
        Node::open(machine, self.number)
    }

    /// Boots a driver on a new machine.
    pub fn node(&self) -> Node {
        self.boot(self.machine())
    }
}

/// A running daemon.
pub struct Host {
    daemon: Daemon,
    stats: PathBuf,
    seats: Vec<Seat>,
}

impl Host {
    /// Starts the daemon for guests with sockets in `directory`.
    pub fn start(directory: &Path, guests: u8) -> Self {
        let seats: Vec<Seat> = (1..=guests)
            .map(|number| Seat {
                path: directory.join(format!("{number}.sock")),
                number,
            })
            .collect();
        let stats = directory.join("stats.sock");
        let mut command = PROGRAM.command();
        command.arg("--stats-socket").arg(&stats);
        for seat in &seats {
            command.arg("--guest").arg(format!("path={}", seat.path.display()));
        }
        let daemon = Daemon::start(&mut command);
        seats.iter().for_each(|seat| await_socket(&seat.path));
        await_socket(&stats);
        Self { daemon, stats, seats }
    }

    /// The seats, two by two.
    pub fn pairs(&self) -> Vec<[&Seat; 2]> {
        self.seats.chunks_exact(2).map(|pair| [&pair[0], &pair[1]]).collect()
    }

    /// Waits until no guest has an object or a page, and returns what the daemon holds then.
    pub fn settled(&self) -> Possessions {
        let is_free = |guest: &Value| guest["objects"].as_object().unwrap().is_empty() && guest["pages"] == 0;
        eventually("no guest has an object", || {
            read_stats(&self.stats)["guests"]
                .as_array()
                .unwrap()
                .iter()
                .all(is_free)
        });
        Possessions::of(self.daemon.pid())
    }

    /// Ends the daemon with a signal; returns its exit code.
    pub fn end(self, signal: Signal) -> Option<i32> {
        self.daemon.end(signal).0
    }

    /// Ends the daemon, and returns its log.
    pub fn log(self) -> Vec<String> {
        self.daemon.log()
    }
}
