//! Function that the tests serve: purposes of accesses, identity and layout.

use pci_function::{BarLayout, FunctionSpec};

pci_function::purposes! {
    /// Purpose of an access to guest memory.
    pub enum Purpose {
        /// Data read by the device.
        Gather = "gather",
        /// Data written by the device.
        Scatter = "scatter",
        /// A completion.
        Cqe = "cqe",
    }
}

/// Parts of the function.
pub type FunctionParts = pci_function::FunctionParts<Purpose>;

/// Layout of BAR 0.
pub const BAR: BarLayout = BarLayout {
    size: 16 << 20,
    msix_table: 0x2000,
    msix_pba: 0x3000,
};

/// Identity and layout of the function.
pub fn spec() -> FunctionSpec {
    FunctionSpec {
        vendor_id: 0x15b3,
        device_id: 0x1017,
        subsystem_vendor_id: 0x15b3,
        subsystem_id: 0x0006,
        class_code: 0x02_00_00,
        bar: BAR,
        serial_number: None,
        vital_product_data: None,
        vendor_specific: None,
    }
}
