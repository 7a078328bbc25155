//! Commands of the control socket that only this daemon has.

use std::path::PathBuf;

use clap::{ArgAction, Subcommand};
use serde::{Deserialize, Serialize};
use vhost_daemon::switch;

/// A command, in JSON and on the command line.
#[derive(Subcommand, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum NicCommand {
    /// Plug in or pull the cable between a guest's NIC, or another port, and the switch.
    Cable {
        /// Name of the guest or port.
        guest: String,

        /// The state of the cable.
        #[arg(value_name = "STATE", value_parser = switch("in", "out"), action = ArgAction::Set)]
        plugged: bool,
    },

    /// Set the speed that the other end of a guest's cable has. The link has the fastest speed that both ends have.
    Speed {
        /// Name of the guest.
        guest: String,

        /// Speed in Gb/s; without it, the other end has all speeds of the NIC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gbps: Option<u32>,
    },

    /// List the stations that the switch has learned, with their ports, VLANs and ages.
    MacTable {},

    /// Reset a guest's PCI function as a function-level reset (FLR) does, without the guest.
    ///
    /// The registers read as all ones until the function is set up again, as on hardware: the driver's health poll
    /// reports a fatal error within seconds, and its devices stop. It starts again when the guest removes the function
    /// and rescans the bus, or resets it itself.
    Flr {
        /// Name of the guest.
        guest: String,
    },

    /// Record a guest of a daemon with --recordable (docs/replay.md).
    ///
    /// The record begins at once if no VMM has used the NIC since its last power cycle, and otherwise when the VMM is
    /// gone: until then, the NIC has state that would not be in it.
    Record {
        /// Name of the guest.
        guest: String,

        /// File to write, relative to the daemon's working directory.
        file: PathBuf,
    },

    /// End a guest's record, or take back one that has not begun.
    RecordEnd {
        /// Name of the guest.
        guest: String,
    },

    /// Captures frames and commands; on the command line a program of its own writes them.
    #[command(skip)]
    Capture {
        /// Guest or port whose frames and commands are captured; by default, those of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        /// Whether commands are captured.
        #[serde(default)]
        commands: bool,
        /// Duration; by default, until the connection ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
}
