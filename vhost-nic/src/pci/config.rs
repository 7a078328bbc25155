//! A function's configuration space: what a guest reads and writes, and what its writes mean.

use super::config_layout::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, CONFIG_SPACE_SIZE, DEVICE_CONTROL_HIGH, INITIATE_FLR, Layout,
    MSIX_CONTROL, MSIX_ENABLE, MSIX_FUNCTION_MASK, PMCSR, PMCSR_STATE, VSC,
};
use super::vsc::{self, Vsc};

/// A configuration space. Accesses are within its size.
pub(super) struct ConfigSpace {
    values: Box<[u8; CONFIG_SPACE_SIZE]>,
    layout: Layout,
    /// The registers of the vendor-specific capability, if there is one.
    vsc: Option<Vsc>,
}

/// What the configuration space lets the function do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enabled {
    /// Accesses to BAR 0 are answered.
    pub(super) memory: bool,
    /// The device may access guest memory.
    pub(super) bus_master: bool,
    /// MSI-X Enable.
    pub(super) msix: bool,
    /// MSI-X Function Mask.
    pub(super) function_mask: bool,
}

impl ConfigSpace {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            values: layout.values.clone(),
            vsc: (layout.values[VSC] != 0).then(Vsc::default),
            layout,
        }
    }

    /// As after a reset of the function.
    pub(super) fn reset(&mut self) {
        self.values.clone_from(&self.layout.values);
        // The vendor's semaphores outlive a reset of one function: they are the adapter's.
    }

    pub(super) fn read(&mut self, offset: usize, data: &mut [u8]) {
        let registers = self.vsc_registers(offset, data.len());
        if let Some(vsc) = &mut self.vsc {
            for at in registers {
                self.values[at..at + 4].copy_from_slice(&vsc.read(at - VSC).to_le_bytes());
            }
        }
        data.copy_from_slice(&self.values[offset..offset + data.len()]);
    }

    /// Returns whether the guest asks for a function-level reset.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        for register in self.vsc_registers(offset, data.len()) {
            self.write_vsc(register, offset, data);
        }
        let state = self.values[PMCSR] & PMCSR_STATE;
        for (at, &byte) in (offset..).zip(data) {
            let writable = self.layout.writable[at];
            self.values[at] = self.values[at] & !writable | byte & writable;
        }
        // A transition to a power state there is not, D1 or D2, is discarded (PCI Express Base Specification 7.5.2.2).
        if matches!(self.values[PMCSR] & PMCSR_STATE, 1 | 2) {
            self.values[PMCSR] = self.values[PMCSR] & !PMCSR_STATE | state;
        }
        DEVICE_CONTROL_HIGH
            .checked_sub(offset)
            .and_then(|at| data.get(at))
            .is_some_and(|byte| byte & INITIATE_FLR != 0)
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

    /// The registers of the vendor-specific capability that an access touches, by their offsets.
    fn vsc_registers(&self, offset: usize, length: usize) -> impl Iterator<Item = usize> + use<> {
        let all = VSC + vsc::REGISTERS..VSC + vsc::LENGTH;
        let present = self.vsc.is_some();
        all.step_by(4)
            .filter(move |&at| present && at < offset + length && offset < at + 4)
    }

    fn write_vsc(&mut self, register: usize, offset: usize, data: &[u8]) {
        let (mut value, mut mask) = ([0; 4], [0; 4]);
        for (at, &byte) in (offset..).zip(data) {
            if let Some(index) = at.checked_sub(register).filter(|&index| index < 4) {
                value[index] = byte;
                mask[index] = 0xff;
            }
        }
        if let Some(vsc) = &mut self.vsc {
            vsc.write(register - VSC, u32::from_le_bytes(value), u32::from_le_bytes(mask));
        }
    }
}

#[cfg(test)]
mod tests;
