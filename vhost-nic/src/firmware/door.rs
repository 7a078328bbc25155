//! The door of commands: what is between the driver's command and its execution.

use std::fmt::Debug;
use std::time::Duration;

use mlx5_prm::opcode::Opcode;

/// Fate of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    /// Executed and answered, as without a door.
    #[default]
    Answered,
    /// Not executed, and answered with a status and a syndrome.
    Refused {
        /// Status (`MLX5_CMD_STAT_*`).
        status: u8,
        /// Syndrome.
        syndrome: u32,
    },
    /// Executed, and answered after a delay.
    Late(Duration),
    /// Not answered.
    Lost {
        /// Whether it is executed.
        executed: bool,
    },
    /// Executed, and answered with random reserved bits.
    Reserved {
        /// Seed of the bits.
        seed: u64,
    },
}

/// A door that commands pass.
pub trait CommandDoor: Debug + Send + Sync {
    /// Decides what becomes of a command.
    fn command(&self, opcode: Opcode) -> Fate;

    /// Does `work` after a delay, or not at all.
    fn later(&self, delay: Duration, work: Box<dyn FnOnce() + Send>);
}
