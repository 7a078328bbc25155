//! The device under test, as the PCI core of a kernel sees it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::interrupts::Interrupts;
use crate::memory::Memory;

/// A PCI function with MSI-X whose BAR 0 is laid out as that of an mlx5 adapter.
///
/// Accesses may come from several threads at once.
pub trait Device: Any + Send + Sync {
    /// Reads configuration space.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes configuration space.
    fn config_write(&self, offset: u64, data: &[u8]);

    /// Reads BAR 0.
    fn bar_read(&self, offset: u64, data: &mut [u8]);

    /// Writes BAR 0.
    fn bar_write(&self, offset: u64, data: &[u8]);

    /// Resets the function (FLR). Returns once it accesses no memory any more.
    fn reset(&self);

    /// Removes the machine: what comes next is another one. A device that cannot do that resets the function.
    fn power_cycle(&self) {
        self.reset();
    }

    /// Maps all of `memory` for DMA, at [`BASE`](crate::memory::BASE).
    fn map(&self, memory: &Memory);

    /// Connects the interrupts: every MSI-X message goes to [`Interrupts::deliver`] from now on.
    fn connect(&self, interrupts: Arc<Interrupts>);

    /// Number of objects in the device by type; types without any are left out.
    /// [`Hca::shutdown`](crate::hca::Hca::shutdown) and the fuzz drivers check that none is left; a device that cannot
    /// report them is not checked.
    fn objects(&self) -> BTreeMap<&'static str, usize> {
        BTreeMap::new()
    }

    /// Number of pages that the firmware holds (MANAGE_PAGES), checked after teardown.
    fn firmware_pages(&self) -> usize {
        0
    }
}
