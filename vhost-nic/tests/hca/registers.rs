//! Accesses to the BAR: a driver's, and invalid ones.

use std::sync::Arc;

use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::wait::eventually;
use proptest::prelude::*;
use vhost_nic::net::Switch;
use vhost_nic::pci::BAR_SIZE;

use crate::inspect::Inspect;
use crate::nic;

fn machine() -> Arc<Machine> {
    Arc::new(nic::machine(&Switch::new(), 1))
}

#[test]
fn the_health_counter_moves() {
    let machine = machine();
    let before = machine.read(0x1010);
    eventually("another health counter", || machine.read(0x1010) != before);
}

#[test]
fn the_clock_goes_forward() {
    let machine = machine();
    let now = || u64::from(machine.read(0x1000)) << 32 | u64::from(machine.read(0x1004));
    let before = now();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let elapsed = now() - before;
    assert!((5_000_000..5_000_000_000).contains(&elapsed), "{elapsed} ns");
}

#[test]
fn nothing_that_says_the_device_is_gone() {
    let machine = machine();
    for offset in (0x200..0x240).step_by(4) {
        assert_ne!(machine.read(offset), u32::MAX);
    }
    assert_eq!(machine.read(0x14) >> 8 & 7, 0, "the full interface");
}

#[test]
fn doorbells_before_anything_exists_are_counted() {
    let machine = machine();
    let uar = 16 * 4096;
    machine.write_pair(uar + 0x800, [0; 8]);
    machine.write_pair(uar + 0x20, [0xff; 8]);
    machine.write(uar + 0x40, u32::MAX);
    machine.write(uar + 0x48, 0);
    assert_eq!(machine.nic().snapshot().guest_errors.get("stray_doorbell"), Some(&4));
    Hca::boot(&machine).shutdown();
}

#[test]
fn doorbells_of_queues_that_do_not_exist_are_counted() {
    let machine = machine();
    let hca = Hca::boot(&machine);
    let uar = u64::from(hca.uar) * 4096;
    machine.write_pair(uar + 0x800, [0xff; 8]);
    machine.write_pair(uar + 0x20, [0xff; 8]);
    machine.write(uar + 0x40, u32::MAX);
    machine.write(uar + 0x48, 0x7700_0000);
    assert_eq!(machine.nic().snapshot().guest_errors.get("stray_doorbell"), Some(&4));
    hca.shutdown();
}

#[test]
fn a_doorbell_for_a_receive_queue_is_counted() {
    let machine = machine();
    let hca = Arc::new(Hca::boot(&machine));
    let netdev = Netdev::open(&hca, &Options::default());
    let mut value = [0; 8];
    value[4..].copy_from_slice(&(netdev.channels[0].rq.number << 8).to_be_bytes());
    machine.write_pair(u64::from(hca.uar) * 4096 + 0x800, value);
    assert_eq!(machine.nic().snapshot().guest_errors.get("stray_doorbell"), Some(&1));
}

#[derive(Debug, Clone)]
struct Access {
    offset: u64,
    write: Option<Vec<u8>>,
    length: usize,
}

fn access() -> impl Strategy<Value = Access> {
    let offset = prop_oneof![
        4 => 0..0x2000_u64,
        2 => 0x2000..0x4000_u64,
        8 => (15..19_u64, prop_oneof![Just(0_u64), 0x18..0x50_u64, 0x7f8..0x1008_u64])
            .prop_map(|(page, at)| page * 4096 + at),
        1 => 0..BAR_SIZE,
        1 => BAR_SIZE - 16..BAR_SIZE + 16,
        1 => any::<u64>(),
    ];
    // Address and doorbell of the command queue have a test of their own.
    let offset = offset.prop_map(|offset| {
        if (0..0x20).contains(&offset) {
            offset + 0x20
        } else {
            offset
        }
    });
    (
        offset,
        prop_oneof![Just(1_usize), Just(2), Just(4), Just(8), 0..80_usize],
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(offset, length, write, seed)| Access {
            offset,
            length,
            write: write.then(|| (0..length).map(|at| (seed >> (at % 8 * 8)) as u8).collect()),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_access_is_answered(accesses in proptest::collection::vec(access(), 1..200)) {
        let machine = machine();
        let hca = Arc::new(Hca::boot(&machine));
        let netdev = Netdev::open(&hca, &Options::default());
        for access in &accesses {
            match &access.write {
                Some(data) => machine.device().bar_write(access.offset, data),
                None => {
                    let mut data = vec![0x55; access.length];
                    machine.device().bar_read(access.offset, &mut data);
                    let outside = access.offset.checked_add(access.length as u64).is_none_or(|end| end > BAR_SIZE);
                    prop_assert!(!outside || data.iter().all(|&byte| byte == 0xff));
                }
            }
        }
        // Whatever happened to the queues, the firmware still executes commands.
        machine.enable();
        hca.commands.use_events(None);
        prop_assert!(netdev.link_up());
    }
}
