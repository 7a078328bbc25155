//! Faults of guest memory.

use std::thread;

use pci_function::dma::Purpose as _;

use super::kind::{Access, Accesses, Door};
use super::{Doors, NicFault};
use crate::dma::{MemoryAccess, MemoryDoor, Purpose};
use crate::hca::nic_event;

impl Accesses {
    fn contain(&self, purpose: &str, access: Access) -> bool {
        self.purpose.as_ref().is_none_or(|wanted| wanted == purpose)
            && self.access.is_none_or(|wanted| wanted == access)
    }
}

impl MemoryDoor for Doors {
    fn access(&self, access: &MemoryAccess) -> bool {
        nic_event::record_access(self.0.tracer, access);
        if !self.armed(Door::Memory) {
            return true;
        }
        let object = u32::try_from(access.purpose).unwrap_or(u32::MAX);
        let purpose = Purpose::NAMES[access.purpose];
        let access = if access.write { Access::Write } else { Access::Read };
        let select = |fault: &NicFault| match fault {
            NicFault::DmaFailed { accesses } if accesses.contain(purpose, access) => Some(None),
            NicFault::DmaSlow { accesses, delay } if accesses.contain(purpose, access) => Some(Some(delay.0)),
            _ => None,
        };
        match self.strike(Door::Memory, object, select) {
            None => true,
            Some((None, _)) => false,
            Some((Some(delay), _)) => {
                thread::sleep(delay);
                true
            }
        }
    }
}
