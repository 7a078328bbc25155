//! A PCI function that knows no transport: configuration space, MSI-X, reset, and the device behind BAR 0.
//!
//! An attachment drives a [`PciFunction`]; the function drives a [`Device`]. What the device needs of the function, its
//! way to guest memory and its interrupts, exists before both: see [`FunctionParts`].

mod bus_master;
mod config;
mod config_layout;
mod function;
mod identity;
mod msix;
mod stats;
mod vsc;

pub use bus_master::BusMaster;
pub use config_layout::{CONFIG_SPACE_SIZE, MSIX_PBA, MSIX_TABLE};
pub use function::{FunctionConfig, FunctionParts, PciFunction};
pub use identity::{Identity, UnknownIdentity};
pub use msix::{Delivery, InterruptLines, Masking, Msix, MsixMessage, MsixStats};
pub use stats::{FunctionSnapshot, FunctionStats};

/// Size of BAR 0 in bytes. The most that User Mode Linux can map of a BAR (arch/um/drivers/virt-pci.c).
pub const BAR_SIZE: u64 = 16 << 20;

/// The most vectors that fit between the MSI-X table and the array of pending bits.
pub const MAX_VECTORS: u16 = 256;

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
