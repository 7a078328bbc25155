//! An order for the record of a guest while a daemon runs.

use std::fmt;
use std::fs::File;

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
