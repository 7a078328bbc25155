//! Faults of interrupts.

use std::sync::{Arc, Weak};

use super::kind::Door;
use super::{Doors, NicFault};
use crate::pci::{Delivery, InterruptDoor, InterruptLines, MsixMessage};

/// Lines of an attachment with the door before them. What is late holds them weakly: disconnected lines are not used.
struct Lines {
    doors: Doors,
    own: Weak<Self>,
    lines: Arc<dyn InterruptLines>,
}

impl InterruptDoor for Doors {
    fn before(&self, lines: Arc<dyn InterruptLines>) -> Arc<dyn InterruptLines> {
        Arc::new_cyclic(|own| Lines {
            doors: self.clone(),
            own: own.clone(),
            lines,
        })
    }
}

impl InterruptLines for Lines {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        if !self.doors.armed(Door::Interrupt) {
            return self.lines.deliver(vector, message);
        }
        let later = |delay| {
            let own = self.own.clone();
            self.doors.0.faults.after(delay, move || {
                if let Some(own) = own.upgrade() {
                    own.lines.deliver(vector, message);
                }
            });
        };
        let select = |fault: &NicFault| match fault {
            NicFault::InterruptLost | NicFault::InterruptLate { .. } | NicFault::InterruptSpurious { .. } => {
                Some(fault.clone())
            }
            _ => None,
        };
        match self.doors.strike(Door::Interrupt, vector.into(), select) {
            Some((NicFault::InterruptLost, _)) => Delivery::Done,
            Some((NicFault::InterruptLate { delay }, _)) => {
                later(delay.0);
                Delivery::Done
            }
            Some((NicFault::InterruptSpurious { delay }, _)) => {
                later(delay.0);
                self.lines.deliver(vector, message)
            }
            _ => self.lines.deliver(vector, message),
        }
    }
}
