//! Permission of the guest to access its memory.

use std::sync::atomic::{AtomicBool, Ordering};

/// Bus Master Enable of the Command register, while the function is in D0 (PCI Express Base Specification 7.5.1.1.3).
#[derive(Debug, Default)]
pub struct BusMaster(AtomicBool);

impl BusMaster {
    /// Whether the device may access guest memory.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, enabled: bool) {
        self.0.store(enabled, Ordering::Release);
    }
}
