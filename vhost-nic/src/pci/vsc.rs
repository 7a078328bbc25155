//! Vendor-specific capability (VSC) of ConnectX physical functions: a gateway to the adapter's internal address spaces.
//!
//! The driver (lib/pci_vsc.c of mlx5_core) locks the gateway with a semaphore and a counter, selects a space, and reads
//! or writes one dword at a time. It uses the semaphore space to keep two hosts from resetting the adapter at once, and
//! another space to dump the adapter's registers. There are no registers to dump, so that space is not supported; the
//! driver then silently makes no dumps. The vendor's tools (mstflint) find the adapter's model in the CR space, and
//! access registers by commands ([`icmd`]).

mod icmd;

use std::sync::Arc;

use pci_function::VendorCapability;

use icmd::Icmd;
pub use icmd::{AdapterRegisters, RegisterError};

/// Registers, as offsets from the start of the capability.
const CTRL: usize = 0x4;
const COUNTER: usize = 0x8;
const SEMAPHORE: usize = 0xc;
const ADDRESS: usize = 0x10;
const DATA: usize = 0x14;

/// Length of the capability in bytes.
const LENGTH: u8 = 0x18;

/// Spaces (`AS_*`, mstflint's mtcr_com_defs.h; MLX5_SEMAPHORE_SPACE_DOMAIN). Of commands there are two, one with
/// mailboxes in guest memory, which this device has not.
const ICMD_EXT_SPACE: u16 = 0x1;
const CR_SPACE: u16 = 0x2;
const ICMD_SPACE: u16 = 0x3;
const SEMAPHORE_SPACE: u16 = 0xa;
/// Semaphores: of commands, and of resets (MLX5_SEMAPHORE_SW_RESET).
const ICMD_SEMAPHORE: u32 = 0x0;
const SW_RESET_SEMAPHORE: u32 = 0x20;
/// In the CR space, the model (`HW_ID_ADDR`).
const HARDWARE_ID: u32 = 0xf_0014;

/// Status in the control register: bits 31:29 are nonzero if the space exists.
const SPACE_EXISTS: u32 = 1 << 29;
/// Flag of the address register: to write, the driver sets it and waits until it is clear; to read, the other way
/// round.
const FLAG: u32 = 1 << 31;
const ADDRESS_MASK: u32 = (1 << 30) - 1;

/// Registers of the capability.
#[derive(Debug)]
pub(super) struct Vsc {
    hardware_id: u32,
    icmd: Icmd,
    gateway: Gateway,
}

/// Registers of the capability, and what is behind it but the commands.
#[derive(Debug, Default)]
struct Gateway {
    space: u16,
    counter: u32,
    semaphore: u32,
    address: u32,
    data: u32,
    sw_reset: u32,
    icmd_taken: u32,
}

impl VendorCapability for Vsc {
    fn length(&self) -> u8 {
        LENGTH
    }

    /// Each read of the counter returns a different value.
    fn read(&mut self, offset: usize) -> u32 {
        let gateway = &mut self.gateway;
        match offset {
            CTRL if matches!(gateway.space, ICMD_EXT_SPACE | CR_SPACE | ICMD_SPACE | SEMAPHORE_SPACE) => {
                SPACE_EXISTS | u32::from(gateway.space)
            }
            CTRL => gateway.space.into(),
            COUNTER => {
                // Never 0, the value of a free semaphore.
                gateway.counter = gateway.counter.checked_add(1).unwrap_or(1);
                gateway.counter
            }
            SEMAPHORE => gateway.semaphore,
            ADDRESS => gateway.address,
            DATA => gateway.data,
            _ => 0,
        }
    }

    fn write(&mut self, offset: usize, value: u32, mask: u32) {
        let gateway = &mut self.gateway;
        let merge = |old: u32| old & !mask | value & mask;
        match offset {
            CTRL => gateway.space = merge(gateway.space.into()) as u16,
            SEMAPHORE => {
                let value = merge(gateway.semaphore);
                take(&mut gateway.semaphore, value);
            }
            ADDRESS => {
                let address = merge(gateway.address);
                self.access(address);
            }
            DATA => gateway.data = merge(gateway.data),
            _ => {}
        }
    }

    fn power_cycle(&mut self) {
        self.gateway = Gateway::default();
        self.icmd.power_cycle();
    }
}

impl Vsc {
    /// Creates the capability of an adapter whose model has a number in the CR space, before these registers.
    pub(super) fn new(hardware_id: u32, registers: Option<Arc<dyn AdapterRegisters>>) -> Self {
        Self {
            hardware_id,
            icmd: Icmd::new(registers),
            gateway: Gateway::default(),
        }
    }

    /// Reads or writes the selected space. The flag is flipped at once: the driver finds the access complete.
    fn access(&mut self, address: u32) {
        let gateway = &mut self.gateway;
        let write = address & FLAG != 0;
        gateway.address = address ^ FLAG;
        let at = address & ADDRESS_MASK;
        if gateway.space == ICMD_SPACE {
            match write {
                true => self.icmd.write(at, gateway.data),
                false => gateway.data = self.icmd.read(at),
            }
            return;
        }
        let semaphore = match (gateway.space, at) {
            (SEMAPHORE_SPACE, ICMD_SEMAPHORE) => Some(&mut gateway.icmd_taken),
            (SEMAPHORE_SPACE, SW_RESET_SEMAPHORE) => Some(&mut gateway.sw_reset),
            _ => None,
        };
        match (semaphore, write) {
            (Some(semaphore), true) => take(semaphore, gateway.data),
            (Some(semaphore), false) => gateway.data = *semaphore,
            (None, true) => {}
            (None, false) if gateway.space == CR_SPACE && at == HARDWARE_ID => gateway.data = self.hardware_id,
            (None, false) => gateway.data = 0,
        }
    }
}

/// Takes a semaphore if it is free; writing 0 frees it.
fn take(semaphore: &mut u32, value: u32) {
    if *semaphore == 0 || value == 0 {
        *semaphore = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = u32::MAX;

    #[test]
    fn the_gateway_is_taken_with_the_counter_and_given_back_with_zero() {
        let mut vsc = Vsc::new(0x20d, None);
        let first = vsc.read(COUNTER);
        let second = vsc.read(COUNTER);
        assert_ne!(first, second);
        vsc.write(SEMAPHORE, first, ALL);
        vsc.write(SEMAPHORE, second, ALL);
        assert_eq!(vsc.read(SEMAPHORE), first);
        vsc.write(SEMAPHORE, 0, ALL);
        assert_eq!(vsc.read(SEMAPHORE), 0);
    }

    #[test]
    fn the_counter_never_reads_as_a_free_semaphore() {
        let mut vsc = Vsc::new(0, None);
        vsc.gateway.counter = ALL;
        assert_eq!(vsc.read(COUNTER), 1);
    }

    #[test]
    fn the_space_of_register_dumps_is_refused() {
        let mut vsc = Vsc::new(0x20d, None);
        vsc.write(CTRL, 7, 0xffff);
        assert_eq!(vsc.read(CTRL) >> 29, 0);
    }

    #[test]
    fn the_reset_semaphore_is_held_by_who_took_it_first() {
        let mut vsc = Vsc::new(0x20d, None);
        vsc.write(CTRL, SEMAPHORE_SPACE.into(), ALL);
        assert_ne!(vsc.read(CTRL) >> 29, 0);
        for id in [5, 6] {
            vsc.write(DATA, id, ALL);
            vsc.write(ADDRESS, SW_RESET_SEMAPHORE | FLAG, ALL);
            assert_eq!(vsc.read(ADDRESS) & FLAG, 0, "a write is done when the flag is clear");
        }
        vsc.write(ADDRESS, SW_RESET_SEMAPHORE, ALL);
        assert_eq!(
            vsc.read(ADDRESS),
            SW_RESET_SEMAPHORE | FLAG,
            "a read is done when the flag is set"
        );
        assert_eq!(vsc.read(DATA), 5);
    }

    #[test]
    fn what_is_not_there_reads_zero_and_still_answers() {
        let mut vsc = Vsc::new(0x20d, None);
        vsc.write(DATA, 9, ALL);
        vsc.write(ADDRESS, 0x1234, ALL);
        assert_eq!(vsc.read(ADDRESS), 0x1234 | FLAG);
        assert_eq!(vsc.read(DATA), 0);
    }

    #[test]
    fn tools_find_the_model_and_the_mailbox() {
        let mut vsc = Vsc::new(0x20d, None);
        let mut read = |space: u16, address: u32| {
            vsc.write(CTRL, space.into(), 0xffff);
            assert_ne!(vsc.read(CTRL) >> 29, 0);
            vsc.write(ADDRESS, address, ALL);
            vsc.read(DATA)
        };
        assert_eq!(read(CR_SPACE, HARDWARE_ID), 0x20d);
        assert_eq!(read(CR_SPACE, HARDWARE_ID + 4), 0);
        assert_eq!(read(ICMD_SPACE, 0x1000), 0x350);
        assert_eq!(read(SEMAPHORE_SPACE, ICMD_SEMAPHORE), 0);
    }
}
