//! Commands of the control socket that only this daemon has.

use std::path::PathBuf;

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

    /// Reset a guest's device behind the back of its driver: the session ends, and its peers are notified. The driver
    /// is not told, as vhost-user has no message for that, and works again when it is loaded anew.
    Reset {
        /// Name of the guest.
        guest: String,
    },

    /// Record all guests of a daemon with --recordable (docs/replay.md).
    ///
    /// The record begins at once if no guest has a VMM, and otherwise when the last VMM is gone: until then, the fabric
    /// has state that would not be in it.
    Record {
        /// File to write, relative to the daemon's working directory.
        file: PathBuf,
    },

    /// End the record, or take back one that has not begun.
    RecordEnd {},
}
