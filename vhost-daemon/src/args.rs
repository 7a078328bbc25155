//! Command-line options common to all daemons.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;

use crate::size::parse_size;
use crate::sockets::SocketAccess;

/// Options common to all daemons. A daemon that requires a socket says so with an argument group over `socket_path`,
/// `fd`, `print_capabilities` and its own options that name sockets.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// Listen for a guest's VMM on this socket; once per guest.
    #[arg(long, value_name = "PATH")]
    pub socket_path: Vec<PathBuf>,

    /// Listen for a guest's VMM on this inherited listening socket; once per guest.
    #[arg(long, value_name = "FD")]
    pub fd: Vec<RawFd>,

    /// Permissions of the sockets, in octal; 600 by default, and 660 with --socket-group. Those of the control socket
    /// are always 600.
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub socket_mode: Option<u32>,

    /// Group of the sockets, by its number.
    #[arg(long, value_name = "GID")]
    pub socket_group: Option<u32>,

    /// Report state and counters as JSON on this socket, one document per connection.
    #[arg(long, value_name = "PATH")]
    pub stats_socket: Option<PathBuf>,

    /// Report metrics as OpenMetrics text over HTTP on this socket.
    #[arg(long, value_name = "PATH")]
    pub metrics_socket: Option<PathBuf>,

    /// Take requests on this socket (see the `ctl` and `trace` commands). Whoever may connect sees what the guests do,
    /// and controls their devices.
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Always record the latest events of every thread, so that a trace can begin in the past (`trace --recent`).
    #[arg(long, requires = "control_socket")]
    pub flight_recorder: bool,

    /// Exit with code 1 at the end, and say why in one line, if there are findings of these kinds, by their names in
    /// docs/findings.md; `finding=` may precede a name. `any` stands for all guest errors, `all` for suspicions as
    /// well.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub fail_on: Vec<String>,

    /// Faults on purpose: a plan in TOML (docs/faults.md), in force from the start.
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,

    /// Bytes of memory that the VMM of each guest may share with the daemon; by default an equal share of 64T, half of
    /// the addresses that the process has.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_guest_memory: Option<u64>,

    /// Print the capabilities of this back-end as JSON (vhost-user back-end conventions) and exit.
    #[arg(long, exclusive = true)]
    pub print_capabilities: bool,
}

/// Half of the addresses of a process, for the memory of all guests.
const ALL_GUEST_MEMORY: u64 = 1 << 46;

impl CommonArgs {
    /// Returns who may connect to the sockets.
    pub fn socket_access(&self) -> SocketAccess {
        let default = if self.socket_group.is_some() { 0o660 } else { 0o600 };
        SocketAccess {
            mode: self.socket_mode.unwrap_or(default),
            group: self.socket_group,
        }
    }

    /// Returns the bytes of memory that each of `guests` guests may have.
    pub fn guest_memory_limit(&self, guests: usize) -> u64 {
        let share = ALL_GUEST_MEMORY / guests.max(1) as u64;
        self.max_guest_memory.unwrap_or(share)
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permissions are octal, from 0 to 777".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        for bad in ["", "680", "1777", "rw"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
