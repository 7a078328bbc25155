use proptest::prelude::*;

use super::*;
use crate::pci::{BAR_SIZE, FunctionConfig, Identity};

fn space(identity: Identity) -> ConfigSpace {
    let config = FunctionConfig {
        identity,
        mac: [2, 0, 0, 0, 0, 1],
    };
    ConfigSpace::new(Layout::new(&config, 32))
}

fn dword(space: &mut ConfigSpace, offset: usize) -> u32 {
    let mut data = [0; 4];
    space.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(space: &mut ConfigSpace, offset: usize, value: u32) {
    assert!(!space.write(offset, &value.to_le_bytes()));
}

/// The offsets of the capabilities in a list, with their IDs.
fn capabilities(space: &mut ConfigSpace) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    let mut next = dword(space, 0x34) as u8;
    while next != 0 && found.len() < 48 {
        let header = dword(space, next.into());
        found.push((next, header as u8));
        next = (header >> 8) as u8;
    }
    found
}

#[test]
fn every_adapter_has_its_ids_and_the_class_of_an_ethernet_controller() {
    for identity in Identity::ALL {
        let mut space = space(identity);
        assert_eq!(dword(&mut space, 0), u32::from(identity.device_id()) << 16 | 0x15b3);
        assert_eq!(dword(&mut space, 8), 0x0200_0000);
        assert_eq!(
            dword(&mut space, 0x2c),
            u32::from(identity.subsystem_id()) << 16 | 0x15b3
        );
    }
}

#[test]
fn ones_written_to_the_bar_tell_its_size_and_type() {
    let mut space = space(Identity::ConnectX5);
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
    let mut space = space(Identity::ConnectX5);
    for offset in [0x18, 0x1c, 0x20, 0x24, 0x28, 0x30, 0x38] {
        write(&mut space, offset, u32::MAX);
        assert_eq!(dword(&mut space, offset), 0, "{offset:#x}");
    }
}

#[test]
fn the_capabilities_are_those_of_the_adapter() {
    assert_eq!(
        capabilities(&mut space(Identity::ConnectX5)),
        [(0x60, 0x10), (0x9c, 0x11), (0xc0, 0x09), (0x40, 0x01)]
    );
    assert_eq!(
        capabilities(&mut space(Identity::VirtualFunction)),
        [(0x60, 0x10), (0x9c, 0x11), (0x40, 0x01)]
    );
}

#[test]
fn the_command_register_enables_memory_and_bus_mastering() {
    let mut space = space(Identity::ConnectX5);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (false, false));
    write(&mut space, COMMAND, 0xffff_ffff);
    assert_eq!(dword(&mut space, COMMAND), 0x0010_0546);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (true, true));
    space.write(COMMAND, &[2]);
    assert_eq!((space.enabled().memory, space.enabled().bus_master), (true, false));
}

#[test]
fn in_d3hot_nothing_is_enabled_and_nothing_is_lost() {
    let mut space = space(Identity::ConnectX5);
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
    let mut space = space(Identity::ConnectX5);
    write(&mut space, 0x9c, u32::MAX);
    assert_eq!(dword(&mut space, 0x9c), 0xc01f_c011);
    assert_eq!((space.enabled().msix, space.enabled().function_mask), (true, true));
    assert_eq!(dword(&mut space, 0xa0), 0x2000);
    assert_eq!(dword(&mut space, 0xa4), 0x3000);
}

#[test]
fn only_the_bit_that_says_so_asks_for_a_reset() {
    let mut space = space(Identity::ConnectX5);
    assert!(!space.write(0x68, &[0xff, 0x7f]));
    assert!(space.write(0x68, &[0, 0x80]));
    assert!(space.write(0x69, &[0x80]));
    assert!(space.write(0x60, &[0xff; 16]));
    assert!(!space.write(0x6a, &[0xff; 16]));
    assert_eq!(dword(&mut space, 0x68) & 0x8000, 0, "it reads 0");
}

#[test]
fn a_reset_brings_every_byte_back() {
    let mut space = space(Identity::ConnectX5);
    let mut before = [0; CONFIG_SPACE_SIZE];
    before.copy_from_slice(&*space.values);
    space.write(0, &[0xff; 0xc0]);
    assert_ne!(before[..], space.values[..]);
    space.reset();
    assert_eq!(before[..], space.values[..]);
}

#[test]
fn the_serial_number_is_made_of_the_mac_address() {
    let mut space = space(Identity::ConnectX5);
    assert_eq!(dword(&mut space, 0x100), 0x0001_0003);
    assert_eq!(dword(&mut space, 0x104), 0xfe00_0001);
    assert_eq!(dword(&mut space, 0x108), 0x0200_00ff);
}

#[test]
fn the_driver_takes_the_gateway_through_dwords_and_bytes() {
    let mut space = space(Identity::ConnectX5);
    let counter = dword(&mut space, VSC + 8);
    assert_ne!(counter, dword(&mut space, VSC + 8));
    write(&mut space, VSC + 0xc, counter);
    assert_eq!(dword(&mut space, VSC + 0xc), counter);
    // A byte of the data register leaves the others alone.
    write(&mut space, VSC + 0x14, 0x1122_3344);
    space.write(VSC + 0x15, &[0xaa]);
    assert_eq!(dword(&mut space, VSC + 0x14), 0x1122_aa44);
}

proptest! {
    /// Bits without a mask never change, the others always do what was written.
    #[test]
    fn only_writable_bits_change(
        offset in 0_usize..CONFIG_SPACE_SIZE,
        data in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut space = space(Identity::VirtualFunction);
        let data = &data[..data.len().min(CONFIG_SPACE_SIZE - offset)];
        let before = space.values.clone();
        space.write(offset, data);
        for (at, old) in before.iter().enumerate() {
            let mask = space.layout.writable[at];
            let written = at.checked_sub(offset).and_then(|index| data.get(index));
            let expected = written.map_or(*old, |new| old & !mask | new & mask);
            if at != PMCSR {
                prop_assert_eq!(space.values[at], expected, "{:#x}", at);
            }
        }
    }
}
