//! Faults on purpose, each at a door of the NIC: the cable, the commands, the queues of completions and events, the
//! interrupts, guest memory, and BAR 0. The NIC behind the doors knows nothing of them.
//!
//! [`Doors`] is what a NIC and its function are created with. The rules come and go meanwhile
//! ([`Faults`](vhost_daemon::fault::Faults)).

mod action;
mod bar;
mod command;
mod entries;
mod interrupt;
mod kind;
mod memory;
mod wire;

use std::sync::{Arc, OnceLock, Weak};

use vhost_daemon::fault::GuestFaults;
use vhost_daemon::trace::Tracer;

pub use kind::{Access, AsyncEvent, NicFault, Occasion};

use crate::hca::nic_event::NicEvent;
use crate::nic::{Nic, NicDoors};
use crate::pci::{Device, FunctionParts, PciFunction};
use kind::Door;

/// The faults of one guest, at all doors of its NIC.
#[derive(Debug, Clone)]
pub struct Doors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    faults: GuestFaults<NicFault>,
    tracer: Tracer,
    target: OnceLock<Target>,
    wire: wire::Wire,
}

/// The NIC and the function that actions are taken on.
#[derive(Debug)]
struct Target {
    nic: Weak<Nic>,
    function: Weak<PciFunction>,
}

impl Doors {
    /// Creates the doors of a guest.
    pub fn new(faults: GuestFaults<NicFault>, tracer: Tracer) -> Self {
        Self(Arc::new(Shared {
            faults,
            tracer,
            target: OnceLock::new(),
            wire: wire::Wire::default(),
        }))
    }

    /// Puts the doors into guest memory and interrupts, before anything uses them.
    pub fn install(&self, parts: &FunctionParts) {
        parts.dma.set_door(Arc::new(self.clone()));
        parts.msix.set_door(Arc::new(self.clone()));
    }

    /// The doors of the NIC itself.
    pub fn of_nic(&self) -> NicDoors {
        NicDoors {
            commands: Some(Arc::new(self.clone())),
            entries: Some(Arc::new(self.clone())),
            cable: Some(Arc::new(self.clone())),
            tape: None,
        }
    }

    /// BAR 0 of a device.
    pub fn bar(&self, device: Arc<dyn Device>) -> Arc<dyn Device> {
        Arc::new(bar::Bar::new(self.clone(), device))
    }

    /// Names the NIC and the function that actions are taken on. Further calls are ignored.
    pub fn connect(&self, nic: &Arc<Nic>, function: &Arc<PciFunction>) {
        let _ = self.0.target.set(Target {
            nic: Arc::downgrade(nic),
            function: Arc::downgrade(function),
        });
    }

    /// Takes the actions whose occasion is [`Occasion::Now`]: after a plan has been applied.
    pub fn now(&self) {
        self.act(Occasion::Now, 0);
    }

    fn armed(&self, door: Door) -> bool {
        self.0.faults.armed(door as u32)
    }

    /// Returns what `select` makes of the first rule that strikes, with a random number.
    fn strike<T>(&self, door: Door, object: u32, select: impl FnMut(&NicFault) -> Option<T>) -> Option<(T, u64)> {
        let struck = match door.is_inside() {
            true => self.0.faults.strike_inside(door as u32, object, select),
            false => self.0.faults.strike(object, select),
        };
        if struck.is_some() {
            self.record(door, object);
        }
        struck
    }

    fn record(&self, door: Door, object: u32) {
        self.0.tracer.record(NicEvent::Fault, object, || [door as u32, 0, 0, 0]);
    }
}
