//! Commands of the control socket that only this daemon has.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

/// A command, in JSON and on the command line.
#[derive(Subcommand, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum IsmCommand {
    /// End the connection of a guest's VMM: the guest's session ends, and its peers are notified. QEMU does not connect
    /// again.
    Disconnect {
        /// Name of the guest.
        guest: String,
    },
}
