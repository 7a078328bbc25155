//! The PCI function of a ConnectX: its identity, the layout of its BAR, and its vendor-specific capability.

mod connectx;
mod identity;
mod vpd;
mod vsc;

pub use connectx::{BAR_SIZE, FunctionConfig, MAX_VECTORS, MSIX_PBA, MSIX_TABLE};
pub use identity::{Identity, UnknownIdentity};
pub use pci_function::{
    BusMaster, CONFIG_SPACE_SIZE, Change, Delivery, Device, FunctionDoor, FunctionSnapshot, InterruptDoor,
    InterruptLines, Masking, Msix, MsixMessage, MsixStats, PciFunction, Space,
};
pub use vsc::{AdapterRegisters, RegisterError};

/// Parts shared by the function and the NIC behind it.
pub type FunctionParts = pci_function::FunctionParts<crate::dma::Purpose>;

#[cfg(test)]
mod tests;
