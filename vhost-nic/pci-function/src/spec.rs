//! Properties of a function that its device decides.

/// Identity and layout of a function.
pub struct FunctionSpec {
    /// Vendor ID.
    pub vendor_id: u16,
    /// Device ID.
    pub device_id: u16,
    /// Subsystem Vendor ID.
    pub subsystem_vendor_id: u16,
    /// Subsystem ID.
    pub subsystem_id: u16,
    /// Class code, 24 bits: base class, sub-class, programming interface.
    pub class_code: u32,
    /// Layout of BAR 0.
    pub bar: BarLayout,
    /// Device serial number (EUI-64), for a device that has one.
    pub serial_number: Option<u64>,
    /// Vital product data (VPD), at most 32 KiB, for a device that has them.
    pub vital_product_data: Option<Vec<u8>>,
    /// Vendor-specific capability, for a device that has one.
    pub vendor_specific: Option<Box<dyn VendorCapability>>,
}

/// Size of BAR 0, and the parts of it that the function serves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarLayout {
    /// Size in bytes, a power of two from 16 bytes to 2 GiB.
    pub size: u64,
    /// Offset of the MSI-X table, a multiple of 8.
    pub msix_table: u64,
    /// Offset of the pending bit array behind it, a multiple of 8.
    pub msix_pba: u64,
}

/// Registers of a vendor-specific capability (PCI Express Base Specification 7.9.4). Offsets count from the start of
/// the capability.
pub trait VendorCapability: Send {
    /// Length of the capability in bytes, a multiple of 4, at most 64. The registers begin at offset 4.
    fn length(&self) -> u8;

    /// Reads the dword at `offset`.
    fn read(&mut self, offset: usize) -> u32;

    /// Writes those bits of the dword at `offset` that are set in `mask`.
    fn write(&mut self, offset: usize, value: u32, mask: u32);

    /// Returns all registers to their state after power-on.
    fn power_cycle(&mut self);
}
