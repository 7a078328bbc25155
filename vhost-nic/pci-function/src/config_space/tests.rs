use proptest::prelude::*;

use super::*;
use crate::spec::BarLayout;

const BAR_SIZE: u64 = 16 << 20;

/// A vendor-specific capability with one scratch register.
struct Scratch(u32);

impl VendorCapability for Scratch {
    fn length(&self) -> u8 {
        8
    }

    fn read(&mut self, offset: usize) -> u32 {
        assert_eq!(offset, 4);
        self.0
    }

    fn write(&mut self, offset: usize, value: u32, mask: u32) {
        assert_eq!(offset, 4);
        self.0 = self.0 & !mask | value & mask;
    }

    fn power_cycle(&mut self) {
        self.0 = 0;
    }
}

fn space(vendor_specific: Option<Box<dyn VendorCapability>>) -> ConfigSpace {
    let spec = FunctionSpec {
        vendor_id: 0x1234,
        device_id: 0x5678,
        subsystem_vendor_id: 0x9abc,
        subsystem_id: 0xdef0,
        class_code: 0x01_02_03,
        bar: BarLayout {
            size: BAR_SIZE,
            msix_table: 0x2000,
            msix_pba: 0x3000,
        },
        serial_number: Some(0x0123_4567_89ab_cdef),
        vital_product_data: Some((1..=6).collect()),
        vendor_specific,
    };
    ConfigSpace::new(spec, 32)
}

fn plain() -> ConfigSpace {
    space(None)
}

fn dword(space: &mut ConfigSpace, offset: usize) -> u32 {
    let mut data = [0; 4];
    space.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(space: &mut ConfigSpace, offset: usize, value: u32) {
    assert!(!space.write(offset, &value.to_le_bytes()));
}

#[test]
fn the_ids_are_those_of_the_device() {
    let mut space = plain();
    assert_eq!(dword(&mut space, 0), 0x5678_1234);
    assert_eq!(dword(&mut space, 8), 0x0102_0300);
    assert_eq!(dword(&mut space, 0x2c), 0xdef0_9abc);
    assert_eq!(dword(&mut space, 0x100), 0x0001_0003);
    assert_eq!(dword(&mut space, 0x104), 0x89ab_cdef);
    assert_eq!(dword(&mut space, 0x108), 0x0123_4567);
}

#[test]
fn vital_product_data_are_read_by_the_dword_and_not_written() {
    let mut space = plain();
    assert_eq!(dword(&mut space, 0x48) as u8, 0x03);
    let mut read = |address: u16| {
        space.write(VPD_ADDRESS, &address.to_le_bytes());
        assert_eq!(
            dword(&mut space, VPD_ADDRESS - 2) >> 16,
            u32::from(address | VPD_FLAG),
            "the flag tells the end"
        );
        dword(&mut space, VPD_DATA)
    };
    assert_eq!((read(0), read(4), read(0x7ffc)), (0x0403_0201, 0x0605, 0));
    write(&mut space, VPD_DATA, 0xffff_ffff);
    space.write(VPD_ADDRESS, &VPD_FLAG.to_le_bytes());
    assert_eq!(dword(&mut space, VPD_ADDRESS - 2) >> 16, 0, "the flag tells the end");
    space.write(VPD_ADDRESS, &[0, 0]);
    assert_eq!(dword(&mut space, VPD_DATA), 0x0403_0201);
}

#[test]
fn the_registers_of_a_vendor_specific_capability_are_those_of_the_device() {
    let mut space = space(Some(Box::new(Scratch(0))));
    assert_eq!(dword(&mut space, VENDOR_SPECIFIC), 0x0008_4009);
    write(&mut space, VENDOR_SPECIFIC + 4, 0x1122_3344);
    // A byte leaves the others alone.
    space.write(VENDOR_SPECIFIC + 5, &[0xaa]);
    assert_eq!(dword(&mut space, VENDOR_SPECIFIC + 4), 0x1122_aa44);
    // A write across its end, and one behind it.
    space.write(VENDOR_SPECIFIC + 7, &[0x55, 0x66]);
    space.write(VENDOR_SPECIFIC + 8, &[0x77]);
    assert_eq!(dword(&mut space, VENDOR_SPECIFIC + 4), 0x5522_aa44);
    space.reset();
    assert_eq!(dword(&mut space, VENDOR_SPECIFIC + 4), 0x5522_aa44);
    assert_eq!(dword(&mut plain(), VENDOR_SPECIFIC), 0);
}

#[test]
fn ones_written_to_the_bar_tell_its_size_and_type() {
    let mut space = plain();
    write(&mut space, 0x10, u32::MAX);
    write(&mut space, 0x14, u32::MAX);
    let low = dword(&mut space, 0x10);
    let size = (!(u64::from(dword(&mut space, 0x14)) << 32 | u64::from(low & !0xf))).wrapping_add(1);
    assert_eq!(size, BAR_SIZE);
    assert_eq!(low & 0xf, 0xc, "64-bit, prefetchable, memory");
    write(&mut space, 0x10, 0xfd12_3456);
    assert_eq!(dword(&mut space, 0x10), 0xfd00_000c);
}

#[test]
fn there_is_no_other_bar_and_no_rom() {
    let mut space = plain();
    for offset in [0x18, 0x1c, 0x20, 0x24, 0x28, 0x30, 0x38] {
        write(&mut space, offset, u32::MAX);
        assert_eq!(dword(&mut space, offset), 0, "{offset:#x}");
    }
}

#[test]
fn the_command_register_enables_memory_and_bus_mastering() {
    let mut space = plain();
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (false, false));
    write(&mut space, COMMAND, 0xffff_ffff);
    assert_eq!(dword(&mut space, COMMAND), 0x0010_0546);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (true, true));
    space.write(COMMAND, &[2]);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (true, false));
}

#[test]
fn in_d3hot_nothing_is_enabled_and_nothing_is_lost() {
    let mut space = plain();
    write(&mut space, COMMAND, 6);
    space.write(PMCSR, &[3]);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (false, false));
    for there_is_no in [1, 2] {
        space.write(PMCSR, &[there_is_no]);
        assert_eq!(dword(&mut space, PMCSR) & 3, 3);
    }
    space.write(PMCSR, &[0]);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (true, true));
}

#[test]
fn msix_control_has_the_table_size_and_two_writable_bits() {
    let mut space = space(Some(Box::new(Scratch(0))));
    write(&mut space, 0x9c, u32::MAX);
    assert_eq!(dword(&mut space, 0x9c), 0xc01f_c011);
    assert_eq!((space.enabled().msix, space.enabled().function_mask), (true, true));
    assert_eq!(dword(&mut space, 0xa0), 0x2000);
    assert_eq!(dword(&mut space, 0xa4), 0x3000);
}

#[test]
fn only_the_bit_that_says_so_asks_for_a_reset() {
    let mut space = plain();
    assert!(!space.write(0x68, &[0xff, 0x7f]));
    assert!(space.write(0x68, &[0, 0x80]));
    assert!(space.write(0x69, &[0x80]));
    assert!(space.write(0x60, &[0xff; 16]));
    assert!(!space.write(0x6a, &[0xff; 16]));
    assert_eq!(dword(&mut space, 0x68) & 0x8000, 0, "it reads 0");
}

#[test]
fn a_reset_brings_every_byte_back() {
    let mut space = plain();
    let mut before = [0; CONFIG_SPACE_SIZE];
    before.copy_from_slice(&*space.values);
    space.write(0, &[0xff; 0xc0]);
    assert_ne!(before[..], space.values[..]);
    space.reset();
    assert_eq!(before[..], space.values[..]);
}

proptest! {
    /// Read-only bits never change, the others always take the written value.
    #[test]
    fn only_writable_bits_change(
        offset in 0_usize..CONFIG_SPACE_SIZE,
        data in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut space = plain();
        let data = &data[..data.len().min(CONFIG_SPACE_SIZE - offset)];
        let before = space.values.clone();
        space.write(offset, data);
        for (at, old) in before.iter().enumerate() {
            let mask = space.layout.writable[at];
            let written = at.checked_sub(offset).and_then(|index| data.get(index));
            let expected = written.map_or(*old, |new| old & !mask | new & mask);
            // A write to the address of vital product data reads them.
            let vital_product_data = (VPD_ADDRESS..VPD_DATA + 4).contains(&at);
            if at != PMCSR && !vital_product_data {
                prop_assert_eq!(space.values[at], expected, "{:#x}", at);
            }
        }
    }
}
