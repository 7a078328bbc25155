use std::sync::Arc;

use super::*;
use crate::frame::mac::Mac;

struct Nothing;

impl Device for Nothing {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}
    fn write(&self, _offset: u64, _data: &[u8]) {}
    fn reset(&self) {}
}

/// Offset of the vendor-specific capability.
const VSC: u64 = 0xc0;

fn function(identity: Identity) -> PciFunction {
    let config = FunctionConfig {
        identity,
        mac: Mac([2, 0, 0, 0, 0, 1]),
    };
    PciFunction::new(config, FunctionParts::new(32), Arc::new(Nothing))
}

fn dword(function: &PciFunction, offset: u64) -> u32 {
    let mut data = [0; 4];
    function.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(function: &PciFunction, offset: u64, value: u32) {
    function.config_write(offset, &value.to_le_bytes());
}

/// The offsets of the capabilities in a list, with their IDs.
fn capabilities(function: &PciFunction) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    let mut next = dword(function, 0x34) as u8;
    while next != 0 && found.len() < 48 {
        let header = dword(function, next.into());
        found.push((next, header as u8));
        next = (header >> 8) as u8;
    }
    found
}

#[test]
fn the_largest_table_fits() {
    let config = FunctionConfig {
        identity: Identity::ConnectX5,
        mac: Mac([2, 0, 0, 0, 0, 1]),
    };
    let function = PciFunction::new(config, FunctionParts::new(MAX_VECTORS), Arc::new(Nothing));
    assert_eq!(function.msix().vectors(), MAX_VECTORS);
}

#[test]
fn every_adapter_has_its_ids_and_the_class_of_an_ethernet_controller() {
    for identity in Identity::ALL {
        let function = function(identity);
        assert_eq!(dword(&function, 0), u32::from(identity.device_id()) << 16 | 0x15b3);
        assert_eq!(dword(&function, 8), 0x0200_0000);
        assert_eq!(
            dword(&function, 0x2c),
            u32::from(identity.subsystem_id()) << 16 | 0x15b3
        );
    }
}

#[test]
fn the_capabilities_are_those_of_the_adapter() {
    assert_eq!(
        capabilities(&function(Identity::ConnectX5)),
        [(0x60, 0x10), (0x48, 0x03), (0x9c, 0x11), (0xc0, 0x09), (0x40, 0x01)]
    );
    assert_eq!(
        capabilities(&function(Identity::VirtualFunction)),
        [(0x60, 0x10), (0x9c, 0x11), (0x40, 0x01)]
    );
}

#[test]
fn the_serial_number_is_made_of_the_mac_address() {
    let function = function(Identity::ConnectX5);
    assert_eq!(dword(&function, 0x100), 0x0001_0003);
    assert_eq!(dword(&function, 0x104), 0xfe00_0001);
    assert_eq!(dword(&function, 0x108), 0x0200_00ff);
}

#[test]
fn the_driver_takes_the_gateway_through_dwords_and_bytes() {
    let function = function(Identity::ConnectX5);
    let counter = dword(&function, VSC + 8);
    assert_ne!(counter, dword(&function, VSC + 8));
    write(&function, VSC + 0xc, counter);
    assert_eq!(dword(&function, VSC + 0xc), counter);
    // A byte of the data register leaves the others alone.
    write(&function, VSC + 0x14, 0x1122_3344);
    function.config_write(VSC + 0x15, &[0xaa]);
    assert_eq!(dword(&function, VSC + 0x14), 0x1122_aa44);
}
