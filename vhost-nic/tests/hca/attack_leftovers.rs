//! Traces that the guest of a socket leaves for the next one.

use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::{ModifyNicVportContextIn, ModifyNicVportContextOut};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::nic::machine;

/// Semaphore of the gateway in the vendor-specific capability (`PCI_VSC_SEMAPHORE`, lib/pci_vsc.c of mlx5_core).
const SEMAPHORE: u64 = 0xc0 + 0xc;

#[test]
fn the_next_machine_finds_nothing_of_the_last() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let snapshot = || machine.nic().snapshot();
    let mac = snapshot().mac;
    let hca = Arc::new(Hca::boot(&machine));
    let mut netdev = Netdev::open(&hca, &Options::default());
    netdev.send(&[[0xff; 6], machine.mac, [8, 0, 0, 0, 0, 0]].concat());
    assert_eq!(snapshot().port.sent, 1);
    let mut input = ModifyNicVportContextIn::default();
    input.field_select_mut().set_permanent_address(true);
    let address = input.nic_vport_context_mut().permanent_address_mut();
    address.set_mac_addr_47_32(0x5254);
    address.set_mac_addr_31_0(0xc502);
    hca.commands
        .call::<_, ModifyNicVportContextOut>(Opcode::MODIFY_NIC_VPORT_CONTEXT, &input)
        .unwrap();
    machine.device().config_write(SEMAPHORE, &7_u32.to_le_bytes());
    let semaphore = || {
        let mut bytes = [0; 4];
        machine.device().config_read(SEMAPHORE, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    // A reset of the function is the guest's own.
    machine.device().reset();
    assert_eq!((snapshot().mac.as_str(), semaphore()), ("52:54:00:00:c5:02", 7));
    machine.device().power_cycle();
    assert_eq!((snapshot().mac, semaphore()), (mac, 0));
    assert_eq!(snapshot().port.sent, 0);
}
