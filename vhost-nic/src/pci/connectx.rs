//! A function that looks like a ConnectX adapter.

use std::sync::Arc;

use pci_function::{BarLayout, FunctionSpec, VendorCapability};

use crate::frame::mac::Mac;
use crate::pci::identity::{Identity, VENDOR};
use crate::pci::vpd::vital_product_data;
use crate::pci::vsc::{AdapterRegisters, Vsc};

/// Size of BAR 0 in bytes: the most that User Mode Linux can map of a BAR (arch/um/drivers/virt-pci.c).
pub const BAR_SIZE: u64 = 16 << 20;
/// Offset of the MSI-X table in BAR 0.
pub const MSIX_TABLE: u64 = 0x2000;
/// Offset of the pending bit array in BAR 0.
pub const MSIX_PBA: u64 = 0x3000;
/// Maximum number of vectors of a NIC: the entries that fit between [`MSIX_TABLE`] and [`MSIX_PBA`].
pub const MAX_VECTORS: u16 = 256;

/// Class code: Ethernet controller.
const ETHERNET_CONTROLLER: u32 = 0x02_00_00;

/// Configuration of a NIC's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Adapter that the function presents itself as.
    pub identity: Identity,
    /// MAC address; the serial number is the EUI-64 made from it.
    pub mac: Mac,
}

impl From<FunctionConfig> for FunctionSpec {
    fn from(config: FunctionConfig) -> Self {
        config.with_registers(None)
    }
}

impl FunctionConfig {
    /// Returns the specification of the function; tools access these registers through its gateway.
    pub fn with_registers(self, registers: Option<Arc<dyn AdapterRegisters>>) -> FunctionSpec {
        let Self { identity, mac } = self;
        FunctionSpec {
            vendor_id: VENDOR,
            device_id: identity.device_id(),
            subsystem_vendor_id: VENDOR,
            subsystem_id: identity.subsystem_id(),
            class_code: ETHERNET_CONTROLLER,
            bar: BarLayout {
                size: BAR_SIZE,
                msix_table: MSIX_TABLE,
                msix_pba: MSIX_PBA,
            },
            serial_number: Some(mac.to_eui64()),
            // Virtual functions have no gateway to the adapter.
            vital_product_data: (!identity.is_virtual()).then(|| vital_product_data(identity, mac)),
            vendor_specific: (!identity.is_virtual())
                .then(|| Box::new(Vsc::new(identity.hardware_id(), registers)) as Box<dyn VendorCapability>),
        }
    }
}
