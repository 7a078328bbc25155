//! Faults of commands.

use std::time::Duration;

use mlx5_prm::opcode::Opcode;

use super::kind::{Commands, Door};
use super::{Doors, NicFault, Occasion};
use crate::firmware::{CommandDoor, Fate};

impl Commands {
    pub(super) fn contain(&self, opcode: Opcode) -> bool {
        self.opcode.is_none_or(|name| name.0 == opcode)
    }
}

impl CommandDoor for Doors {
    fn command(&self, opcode: Opcode) -> Fate {
        if !self.armed(Door::Command) {
            return Fate::Answered;
        }
        self.act(Occasion::Command, opcode.0.into());
        let select = |fault: &NicFault| match fault {
            NicFault::CommandRefused {
                commands,
                status,
                syndrome,
            } if commands.contain(opcode) => Some(Fate::Refused {
                status: *status,
                syndrome: *syndrome,
            }),
            NicFault::CommandLate { commands, delay } if commands.contain(opcode) => Some(Fate::Late(delay.0)),
            NicFault::CommandLost { commands, executed } if commands.contain(opcode) => {
                Some(Fate::Lost { executed: *executed })
            }
            NicFault::ReservedBits { commands } if commands.contain(opcode) => Some(Fate::Reserved { seed: 0 }),
            _ => None,
        };
        match self.strike(Door::Command, opcode.0.into(), select) {
            None => Fate::Answered,
            Some((Fate::Reserved { .. }, seed)) => Fate::Reserved { seed },
            Some((fate, _)) => fate,
        }
    }

    fn later(&self, delay: Duration, work: Box<dyn FnOnce() + Send>) {
        self.0.faults.after_inside(delay, work);
    }
}
