//! Configuration space of a function: reads, writes, and their effects.

use crate::config_layout::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, CONFIG_SPACE_SIZE, DEVICE_CONTROL_HIGH, INITIATE_FLR, Layout,
    MSIX_CONTROL, MSIX_ENABLE, MSIX_FUNCTION_MASK, PMCSR, PMCSR_STATE, VENDOR_SPECIFIC, VPD_ADDRESS, VPD_DATA,
    VPD_FLAG,
};
use crate::spec::{FunctionSpec, VendorCapability};

/// Offset of the registers in the vendor-specific capability.
const VENDOR_REGISTERS: usize = 4;

/// A configuration space. Accesses must be within its size.
pub(super) struct ConfigSpace {
    values: Box<[u8; CONFIG_SPACE_SIZE]>,
    layout: Layout,
    vital_product_data: Option<Vec<u8>>,
    vendor: Option<Box<dyn VendorCapability>>,
}

/// Enable bits of the configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enabled {
    /// Memory Space Enable: BAR 0 is decoded.
    pub(super) memory: bool,
    /// Bus Master Enable: the device may access guest memory.
    pub(super) bus_master: bool,
    pub(super) msix: bool,
    pub(super) function_mask: bool,
}

impl ConfigSpace {
    pub(super) fn new(spec: FunctionSpec, vectors: u16) -> Self {
        let layout = Layout::new(&spec, vectors);
        Self {
            values: layout.values.clone(),
            vital_product_data: spec.vital_product_data,
            vendor: spec.vendor_specific,
            layout,
        }
    }

    /// Restores the values after a reset. The registers of the vendor-specific capability stay: they belong to the
    /// adapter, not to one of its functions.
    pub(super) fn reset(&mut self) {
        self.values.clone_from(&self.layout.values);
    }

    /// Resets the registers of the vendor-specific capability, too.
    pub(super) fn power_cycle(&mut self) {
        self.reset();
        if let Some(vendor) = &mut self.vendor {
            vendor.power_cycle();
        }
    }

    pub(super) fn read(&mut self, offset: usize, data: &mut [u8]) {
        let registers = self.vendor_registers(offset, data.len());
        if let Some(vendor) = &mut self.vendor {
            for at in registers {
                self.values[at..at + 4].copy_from_slice(&vendor.read(at - VENDOR_SPECIFIC).to_le_bytes());
            }
        }
        data.copy_from_slice(&self.values[offset..offset + data.len()]);
    }

    /// Writes the writable bits. Returns whether the guest initiates a function-level reset.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        for register in self.vendor_registers(offset, data.len()) {
            self.write_vendor(register, offset, data);
        }
        let state = self.values[PMCSR] & PMCSR_STATE;
        for (at, &byte) in (offset..).zip(data) {
            let writable = self.layout.writable[at];
            self.values[at] = self.values[at] & !writable | byte & writable;
        }
        // Transitions to the unsupported states D1 and D2 are discarded (PCI Express Base Specification 7.5.2.2).
        if matches!(self.values[PMCSR] & PMCSR_STATE, 1 | 2) {
            self.values[PMCSR] = self.values[PMCSR] & !PMCSR_STATE | state;
        }
        if (offset..offset + data.len()).contains(&(VPD_ADDRESS + 1)) {
            self.access_vital_product_data();
        }
        DEVICE_CONTROL_HIGH
            .checked_sub(offset)
            .and_then(|at| data.get(at))
            .is_some_and(|byte| byte & INITIATE_FLR != 0)
    }

    /// Reads the dword at the written address, or drops one to be written: the data are read-only (7.9.18). The flag is
    /// flipped at once: software finds the access complete.
    fn access_vital_product_data(&mut self) {
        let Some(data) = &self.vital_product_data else { return };
        let address = self.word(VPD_ADDRESS);
        if address & VPD_FLAG == 0 {
            let at = usize::from(address);
            for (index, byte) in self.values[VPD_DATA..VPD_DATA + 4].iter_mut().enumerate() {
                *byte = data.get(at + index).copied().unwrap_or(0);
            }
        }
        self.values[VPD_ADDRESS..VPD_ADDRESS + 2].copy_from_slice(&(address ^ VPD_FLAG).to_le_bytes());
    }

    pub(super) fn enabled(&self) -> Enabled {
        let command = self.word(COMMAND);
        let control = self.word(MSIX_CONTROL);
        let d0 = self.values[PMCSR] & PMCSR_STATE == 0;
        Enabled {
            memory: d0 && command & COMMAND_MEMORY != 0,
            bus_master: d0 && command & COMMAND_BUS_MASTER != 0,
            msix: control & MSIX_ENABLE != 0,
            function_mask: control & MSIX_FUNCTION_MASK != 0,
        }
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.values[offset], self.values[offset + 1]])
    }

    /// Offsets of the registers of the vendor-specific capability that an access touches.
    fn vendor_registers(&self, offset: usize, length: usize) -> impl Iterator<Item = usize> + use<> {
        let capability = self.vendor.as_ref().map_or(0, |vendor| usize::from(vendor.length()));
        (VENDOR_SPECIFIC + VENDOR_REGISTERS..VENDOR_SPECIFIC + capability)
            .step_by(4)
            .filter(move |&at| at < offset + length && offset < at + 4)
    }

    fn write_vendor(&mut self, register: usize, offset: usize, data: &[u8]) {
        let (mut value, mut mask) = ([0; 4], [0; 4]);
        for (at, &byte) in (offset..).zip(data) {
            if let Some(index) = at.checked_sub(register).filter(|&index| index < 4) {
                value[index] = byte;
                mask[index] = 0xff;
            }
        }
        if let Some(vendor) = &mut self.vendor {
            vendor.write(
                register - VENDOR_SPECIFIC,
                u32::from_le_bytes(value),
                u32::from_le_bytes(mask),
            );
        }
    }
}

#[cfg(test)]
mod tests;
