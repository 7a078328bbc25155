//! Orders for records while a daemon runs.

use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use thiserror::Error;

use super::setup::Setup;

/// An order for a record.
pub struct Order {
    /// File to write.
    pub file: File,
    /// Configuration of the NIC.
    pub setup: Setup,
    /// Sets what outlives a power cycle (cable, speed of its other end) to what it is, as entries.
    pub restore: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("guest", &self.setup.name)
            .finish_non_exhaustive()
    }
}

/// Begin of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It has begun.
    Now,
    /// It begins when the VMM is gone: until then, the NIC has state that would not be in it.
    Later,
}

/// Reason why a record is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OrderError {
    /// The guest's recorder is at no door.
    #[error("the daemon runs without --recordable")]
    TurnsOnly,
    /// The guest is recorded.
    #[error("the guest is recorded already")]
    Recorded,
    /// A record has been ordered.
    #[error("a record of the guest is to begin already")]
    Ordered,
}

/// The order for a record of one guest.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    order: Mutex<Option<Order>>,
    /// Whether a VMM has used the NIC since its last power cycle.
    used: AtomicBool,
}

impl OnDemand {
    pub fn set_used(&self, used: bool) {
        self.used.store(used, Ordering::Relaxed);
    }

    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub fn order(&self, order: Order) -> Result<(), OrderError> {
        let mut place = self.order.lock();
        if place.is_some() {
            return Err(OrderError::Ordered);
        }
        *place = Some(order);
        Ok(())
    }

    pub fn take(&self) -> Option<Order> {
        self.order.lock().take()
    }
}
