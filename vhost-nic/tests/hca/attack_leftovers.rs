//! Traces that the guest of a socket leaves for the next one.

use std::ops::Range;
use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::{
    ModifyNicVportContextIn, ModifyNicVportContextOut, QueryNicVportContextIn, QueryNicVportContextOut,
    QueryVportCounterIn, QueryVportCounterOut,
};
use mlx5_test_driver::hca::{Hca, access_register};
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::netdev::{Netdev, Options};
use vhost_nic::net::Switch;

use zerocopy::IntoBytes;

use crate::inspect::Inspect;
use crate::nic::machine;

/// End of configuration space as far as it is in use, and of the registers of the initialization segment before the
/// counters of health and time. The driver writes the address of its command queue in between.
const CONFIG_END: u64 = 0x200;
const SEGMENT_END: u64 = 0x200;
const COMMAND_QUEUE: Range<u64> = 0x10..0x20;
/// Registers of ACCESS_REG: 0x5000 to 0x507f for the port, and others.
const PORT_REGISTERS: u16 = 0x5000;
const OTHER_REGISTERS: [u16; 12] = [
    0x4005, 0x400a, 0x4013, 0x7004, 0x9014, 0x9020, 0x9024, 0x9028, 0x902b, 0x9053, 0x9060, 0x9061,
];
/// PPCNT, whose groups are 0 to 0x3f, and the bytes of the largest register.
const PPCNT: u16 = 0x5008;
const GROUPS: u8 = 0x40;
const REGISTER_SIZE: usize = 0x100;

/// Numbers of access registers, each with the input that selects port 1.
fn registers() -> Vec<(u16, Vec<u8>)> {
    let input = |group| {
        let mut input = vec![0; REGISTER_SIZE];
        (input[1], input[3]) = (1, group);
        input
    };
    let port = (PORT_REGISTERS..PORT_REGISTERS + 0x80)
        .chain(OTHER_REGISTERS)
        .map(|id| (id, input(0)));
    port.chain((1..GROUPS).map(|group| (PPCNT, input(group)))).collect()
}

/// Reads all that a driver finds in an adapter after it has booted it.
fn found(machine: &Arc<Machine>) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut keep = |what: String, bytes: &[u8]| found.push((what, bytes.to_vec()));
    for at in (0..CONFIG_END).step_by(4) {
        let mut bytes = [0; 4];
        machine.device().config_read(at, &mut bytes);
        keep(format!("configuration space {at:#x}"), &bytes);
    }
    let hca = Arc::new(Hca::boot(machine));
    for at in (0..SEGMENT_END).step_by(4).filter(|at| !COMMAND_QUEUE.contains(at)) {
        keep(format!("segment {at:#x}"), &machine.read(at).to_be_bytes());
    }
    for (id, input) in registers() {
        // A register that does not exist is a finding, and an error each time.
        let read = access_register(&hca.commands, id, false, &input);
        keep(
            format!("register {id:#x}, group {}", input[3]),
            &read.unwrap_or_default(),
        );
    }
    let vport: QueryNicVportContextOut = hca
        .commands
        .call(Opcode::QUERY_NIC_VPORT_CONTEXT, &QueryNicVportContextIn::default())
        .unwrap();
    keep("vport context".to_owned(), vport.as_bytes());
    let counters: QueryVportCounterOut = hca
        .commands
        .call(Opcode::QUERY_VPORT_COUNTER, &QueryVportCounterIn::default())
        .unwrap();
    keep("vport counters".to_owned(), counters.as_bytes());
    let netdev = Netdev::open(&hca, &Options::default());
    let channel = &netdev.channels[0];
    for (what, number) in [("SQ", channel.sq.number), ("RQ", channel.rq.number)] {
        keep(format!("number of the {what}"), &number.to_be_bytes());
    }
    drop(hca);
    netdev.shut_down();
    found
}

#[test]
fn the_next_machine_finds_all_registers_as_after_power_on() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let new = found(&machine);
    assert!(new.iter().filter(|(_, bytes)| bytes.len() == REGISTER_SIZE).count() > 10);
    machine.device().power_cycle();
    machine.enable();
    let hca = Hca::boot(&machine);
    let mut changed = 0;
    for (id, input) in registers() {
        let Ok(mut value) = access_register(&hca.commands, id, false, &input) else {
            continue;
        };
        // Bit after bit, each kept unless it is refused.
        for bit in 32..8 * value.len().min(0x60) {
            value[bit / 8] ^= 1 << (bit % 8);
            match access_register(&hca.commands, id, true, &value) {
                Ok(_) => changed += 1,
                Err(_) => value[bit / 8] ^= 1 << (bit % 8),
            }
        }
    }
    assert!(changed > 100, "{changed}");
    for at in (0..CONFIG_END).step_by(4) {
        machine.device().config_write(at, &[0xff; 4]);
    }
    machine.device().power_cycle();
    machine.enable();
    for (new, next) in new.iter().zip(found(&machine)) {
        assert_eq!(*new, next);
    }
}

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
