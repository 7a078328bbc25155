//! Commands of the control socket that only this daemon has.

use clap::{ArgAction, Subcommand};
use serde::{Deserialize, Serialize};
use vhost_daemon::switch;

/// A command, in JSON and on the command line.
#[derive(Subcommand, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum NicCommand {
    /// Plug in or pull the cable between a guest's NIC and the switch.
    Cable {
        /// Name of the guest.
        guest: String,

        /// The state of the cable.
        #[arg(value_name = "STATE", value_parser = switch("in", "out"), action = ArgAction::Set)]
        plugged: bool,
    },
}
