//! The function an attachment drives.

/// A PCI function with a device behind it.
pub struct PciFunction {}
