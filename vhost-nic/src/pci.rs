//! A PCI function that knows no transport: configuration space, MSI-X, reset, and the device behind BAR 0.
//!
//! An attachment drives a [`PciFunction`]; the function drives a [`Device`].

mod function;
mod msix;

pub use function::PciFunction;
pub use msix::{Delivery, InterruptLines, Msix, MsixMessage};

/// What is behind the BAR of a function. The MSI-X table and its pending bits are the function's own.
///
/// Accesses come from the guest as they are, of any width and at any offset within the BAR.
pub trait Device: Send + Sync {
    /// Fills `data` with what a read at `offset` returns.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes a write of `data` at `offset`.
    fn write(&self, offset: u64, data: &[u8]);

    /// Forgets everything the guest has set up. When it returns, the device touches no guest memory and raises no interrupt
    /// until it is set up again.
    fn reset(&self);
}
