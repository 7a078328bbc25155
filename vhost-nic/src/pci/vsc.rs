//! Vendor-specific capability (VSC) of ConnectX physical functions: a gateway to the adapter's internal address spaces.
//!
//! The driver (lib/pci_vsc.c of mlx5_core) locks the gateway with a semaphore and a counter, selects a space, and reads
//! or writes one dword at a time. It uses the semaphore space to keep two hosts from resetting the adapter at once, and
//! another space to dump the adapter's registers. There are no registers to dump, so that space is not supported; the
//! driver then silently makes no dumps.

use pci_function::VendorCapability;

/// Registers, as offsets from the start of the capability.
const CTRL: usize = 0x4;
const COUNTER: usize = 0x8;
const SEMAPHORE: usize = 0xc;
const ADDRESS: usize = 0x10;
const DATA: usize = 0x14;

/// Length of the capability in bytes.
const LENGTH: u8 = 0x18;

/// MLX5_SEMAPHORE_SPACE_DOMAIN.
const SEMAPHORE_SPACE: u16 = 0xa;
/// MLX5_SEMAPHORE_SW_RESET: address of the only semaphore.
const SW_RESET_SEMAPHORE: u32 = 0x20;

/// Status in the control register: bits 31:29 are nonzero if the space exists.
const SPACE_EXISTS: u32 = 1 << 29;
/// Flag of the address register: to write, the driver sets it and waits until it is clear; to read, the other way
/// round.
const FLAG: u32 = 1 << 31;
const ADDRESS_MASK: u32 = (1 << 30) - 1;

/// Registers of the capability.
#[derive(Debug, Default)]
pub(super) struct Vsc {
    space: u16,
    counter: u32,
    semaphore: u32,
    address: u32,
    data: u32,
    sw_reset: u32,
}

impl VendorCapability for Vsc {
    fn length(&self) -> u8 {
        LENGTH
    }

    /// Each read of the counter returns a different value.
    fn read(&mut self, offset: usize) -> u32 {
        match offset {
            CTRL if self.space == SEMAPHORE_SPACE => SPACE_EXISTS | u32::from(self.space),
            CTRL => self.space.into(),
            COUNTER => {
                // Never 0, the value of a free semaphore.
                self.counter = self.counter.checked_add(1).unwrap_or(1);
                self.counter
            }
            SEMAPHORE => self.semaphore,
            ADDRESS => self.address,
            DATA => self.data,
            _ => 0,
        }
    }

    fn write(&mut self, offset: usize, value: u32, mask: u32) {
        let merge = |old: u32| old & !mask | value & mask;
        match offset {
            CTRL => self.space = merge(self.space.into()) as u16,
            SEMAPHORE => {
                let value = merge(self.semaphore);
                take(&mut self.semaphore, value);
            }
            ADDRESS => self.access(merge(self.address)),
            DATA => self.data = merge(self.data),
            _ => {}
        }
    }

    fn power_cycle(&mut self) {
        *self = Self::default();
    }
}

impl Vsc {
    /// Reads or writes the selected space. The flag is flipped at once: the driver finds the access complete.
    fn access(&mut self, address: u32) {
        let exists = self.space == SEMAPHORE_SPACE && address & ADDRESS_MASK == SW_RESET_SEMAPHORE;
        let write = address & FLAG != 0;
        match (exists, write) {
            (true, true) => take(&mut self.sw_reset, self.data),
            (true, false) => self.data = self.sw_reset,
            (false, true) => {}
            (false, false) => self.data = 0,
        }
        self.address = address ^ FLAG;
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
        let mut vsc = Vsc::default();
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
        let mut vsc = Vsc {
            counter: ALL,
            ..Vsc::default()
        };
        assert_eq!(vsc.read(COUNTER), 1);
    }

    #[test]
    fn the_space_of_register_dumps_is_refused() {
        let mut vsc = Vsc::default();
        vsc.write(CTRL, 7, 0xffff);
        assert_eq!(vsc.read(CTRL) >> 29, 0);
    }

    #[test]
    fn the_reset_semaphore_is_held_by_who_took_it_first() {
        let mut vsc = Vsc::default();
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
        let mut vsc = Vsc::default();
        vsc.write(DATA, 9, ALL);
        vsc.write(ADDRESS, 0x1234, ALL);
        assert_eq!(vsc.read(ADDRESS), 0x1234 | FLAG);
        assert_eq!(vsc.read(DATA), 0);
    }
}
