//! Command-line options common to all daemons.

use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::sandbox::{FileAccess, Sandbox, SandboxError, User, enter};
use crate::size::parse_size;
use crate::sockets::{OwnSockets, SocketAccess, SocketError};

/// Options common to all daemons. A daemon that requires a socket says so with an argument group over `socket_path`,
/// `fd`, `socket_activation`, `print_capabilities` and its own options that name sockets.
#[derive(Args, Clone, Debug, Default)]
#[command(group(ArgGroup::new("trace_readers").args(["control_socket", "trace_dump"]).multiple(true)))]
pub struct CommonArgs {
    /// Listen for a guest's VMM on this socket; once per guest.
    #[arg(long, value_name = "PATH")]
    pub socket_path: Vec<PathBuf>,

    /// Listen for a guest's VMM on this inherited listening socket; once per guest.
    #[arg(long, value_name = "FD")]
    pub fd: Vec<RawFd>,

    /// Listen for guests' VMMs on the sockets that the service manager has passed (socket activation, LISTEN_FDS), one
    /// guest each, but for those that --stats-socket, --metrics-socket, --control-socket or, in vhost-nic, --guest
    /// names by their path: that option takes the socket (docs/services.md).
    #[arg(long)]
    pub socket_activation: bool,

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

    /// Always record the latest events of every thread, so that a trace can begin in the past (`trace --recent`): the
    /// last 2M of each thread, or another SIZE from 64K to 1G, rounded up to a power of two. An event takes 32 bytes.
    #[arg(
        long,
        value_name = "SIZE",
        num_args = 0..=1,
        default_missing_value = "2M",
        value_parser = recorder_size,
        requires = "trace_readers"
    )]
    pub flight_recorder: Option<u64>,

    /// Write what the flight recorder has to a file in this directory, NAME-000001.pftrace and so on (docs/trace.md),
    /// when an event of --trace-dump-on is recorded, at most once in 10 seconds, and on SIGUSR1. Implies
    /// --flight-recorder.
    #[arg(long, value_name = "DIR")]
    pub trace_dump: Option<PathBuf>,

    /// Events that ask for a dump, by their names in docs/trace.md: `finding`, `fault`, in vhost-nic `error_cqe` (these
    /// are the default), `finding=KIND`, any other event, or `signal` for none but SIGUSR1.
    #[arg(long, value_name = "EVENT,...", value_delimiter = ',', requires = "trace_dump")]
    pub trace_dump_on: Vec<String>,

    /// Maximum number of dumps in the directory; the oldest are removed.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..),
        requires = "trace_dump"
    )]
    pub trace_dump_files: u16,

    /// Exit with code 1 at the end, and say why in one line, if there are findings of these kinds, by their names in
    /// docs/findings.md; `finding=` may precede a name. `any` stands for all guest errors, `all` for suspicions as
    /// well.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub fail_on: Vec<String>,

    /// Faults on purpose: a plan in TOML (docs/faults.md), in force from the start.
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,

    /// Let `ctl record` record guests while the daemon runs, to files beneath this directory; by default, beneath the
    /// daemon's working directory (docs/replay.md). The guests take turns, which slows them down.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".")]
    pub recordable: Option<PathBuf>,

    /// Restrict the daemon after its set-up, as far as the kernel can: no capabilities, no files but those of the
    /// options, and of the system calls those that each thread needs (docs/sandbox.md).
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub sandbox: Sandbox,

    /// Become this user and group, by their numbers, once sockets and outputs are open; all other groups are left. The
    /// daemon has to start as root, or with CAP_SETUID and CAP_SETGID.
    #[arg(long, value_name = "UID:GID")]
    pub user: Option<User>,

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

    /// Takes the sockets of --socket-activation. Returns the paths of those that are guests', in the order of the
    /// service manager.
    pub fn take_passed_sockets(&self, own: &mut OwnSockets) -> Result<Vec<PathBuf>, SocketError> {
        if !self.socket_activation {
            return Ok(Vec::new());
        }
        let mut paths = own.take_passed()?;
        own.refuse_passed(&self.fd)?;
        let operators = [&self.stats_socket, &self.metrics_socket, &self.control_socket];
        paths.retain(|path| operators.iter().all(|operator| operator.as_ref() != Some(path)));
        Ok(paths)
    }

    /// Enters the sandbox of --sandbox and --user, with access to the files of the options, and to the sockets that the
    /// process has created. The process has no other thread yet.
    pub fn enter_sandbox(&self, own: &OwnSockets) -> Result<(), SandboxError> {
        let mut files = FileAccess::default();
        own.created().for_each(|path| files.remove_socket(path));
        if let Some(plan) = &self.faults {
            files.read(plan);
        }
        if let Some(directory) = &self.trace_dump {
            files.rotate(directory);
        }
        if let Some(directory) = &self.recordable {
            files.write_beneath(directory);
        }
        enter(self.sandbox, self.user, &files)
    }

    /// Returns the bytes of memory that each of `guests` guests may have.
    pub fn guest_memory_limit(&self, guests: usize) -> u64 {
        let share = ALL_GUEST_MEMORY / guests.max(1) as u64;
        self.max_guest_memory.unwrap_or(share)
    }
}

/// Bytes of the flight recorder per thread.
const RECORDER_SIZES: RangeInclusive<u64> = 64 << 10..=1 << 30;

fn recorder_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    let size = Some(size).filter(|size| RECORDER_SIZES.contains(size));
    size.ok_or_else(|| "the flight recorder has from 64K to 1G".to_owned())
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permissions are octal, from 0 to 777".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flight_recorder_has_limits() {
        assert_eq!(recorder_size("64K"), Ok(64 << 10));
        assert_eq!(recorder_size("1G"), Ok(1 << 30));
        for bad in ["65535", "1025M", "", "x"] {
            assert!(recorder_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        for bad in ["", "680", "1777", "rw"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
