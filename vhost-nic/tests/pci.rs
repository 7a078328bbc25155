//! The configuration space a guest sees after a reset, all of it, against what `lspci -xxxx` shows.

use std::fmt::Write;
use std::sync::Arc;

use vhost_nic::pci::{CONFIG_SPACE_SIZE, Device, FunctionConfig, FunctionParts, Identity, PciFunction};

struct Nothing;

impl Device for Nothing {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}
    fn write(&self, _offset: u64, _data: &[u8]) {}
    fn reset(&self) {}
}

/// Sixteen bytes a line, without the lines that are all zero.
fn dump(identity: Identity) -> String {
    let config = FunctionConfig {
        identity,
        mac: [0x52, 0x54, 0x00, 0x00, 0xc5, 0x01].into(),
    };
    let function = PciFunction::new(config, FunctionParts::new(32), Arc::new(Nothing));
    let mut bytes = [0; CONFIG_SPACE_SIZE];
    function.config_read(0, &mut bytes);
    let mut text = String::new();
    for (at, line) in (0..).step_by(16).zip(bytes.chunks(16)) {
        if line.iter().any(|byte| *byte != 0) {
            let line: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{at:02x}: {}", line.join(" ")).unwrap();
        }
    }
    text
}

#[test]
fn the_configuration_space_of_a_physical_function() {
    assert_eq!(
        dump(Identity::ConnectX5),
        include_str!("golden/config-space-connectx-5.txt")
    );
}

#[test]
fn the_configuration_space_of_a_virtual_function() {
    assert_eq!(
        dump(Identity::VirtualFunction),
        include_str!("golden/config-space-vf.txt")
    );
}
