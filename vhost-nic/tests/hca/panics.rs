//! A panic in the NIC's thread: a fatal error of that guest's NIC, and of no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx5_prm::queue_entry::Cqe;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::wait::eventually;
use vhost_nic::hca::entry_door::{CqeFate, EntryDoor, EventEntry, Posting};
use vhost_nic::net::Switch;

use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{guest, shut};
use crate::nic::machine_with;

/// Words of the initialization segment: interface state (bits 10:8), and the health buffer's syndrome (bits 23:16).
const INTERFACE: u64 = 0x14;
const HEALTH_SYNDROME: u64 = 0x23c;
const COMMAND_DOORBELL: u64 = 0x18;

/// A door behind which the next completion is a panic.
#[derive(Debug, Default)]
struct PanicDoor(AtomicBool);

impl EntryDoor for PanicDoor {
    fn cqe(&self, _cq: u32, _queue: u32, _lower: &[u8], _cqe: &mut Cqe) -> CqeFate {
        assert!(!self.0.swap(false, Ordering::Relaxed), "a mistake in the device");
        CqeFate::Written
    }

    fn eqe(&self, _eq: u32, _event: &EventEntry<'_>) -> Posting {
        Posting::Once
    }
}

#[test]
fn a_panic_is_a_fatal_error_of_one_nic_which_the_driver_sets_up_anew() {
    let (switch, door) = (Switch::new(), Arc::<PanicDoor>::default());
    let machine = Arc::new(machine_with(&switch, 1, |config| {
        config.doors.entries = Some(door.clone());
    }));
    let mut failing = Netdev::open(&Arc::new(Hca::boot(&machine)), &Options::default());
    let mut others = [2, 3].map(|number| guest(&switch, number, &Options::default()));
    let state = || machine.read(INTERFACE) >> 8 & 7;
    assert_eq!((state(), machine.read(HEALTH_SYNDROME)), (0, 0));

    door.0.store(true, Ordering::Relaxed);
    failing.channels[0].sq.nop();
    eventually("the interface is disabled", || state() == 1);
    assert_eq!(machine.read(HEALTH_SYNDROME), 0x0001_0000, "firmware internal error");
    // They are dropped behind the report.
    eventually("the objects are dropped", || {
        let snapshot = machine.nic().snapshot();
        snapshot.objects.is_empty() && !snapshot.started
    });
    // A driver that has not noticed yet.
    machine.write(COMMAND_DOORBELL, 1);
    failing.channels[0].sq.nop();
    let snapshot = machine.nic().snapshot();
    assert!(snapshot.objects.is_empty(), "{:?}", snapshot.objects);
    assert_eq!(snapshot.guest_errors, Default::default(), "the guest is not to blame");
    assert_eq!(snapshot.suspicions, Default::default(), "nor suspected");

    let [a, b] = &mut others;
    for length in [100, 1500] {
        let frame = plain(a.hca.machine.mac, b.hca.machine.mac, length);
        a.send(&frame);
        assert_eq!(b.receive().frame, frame);
    }

    // The driver's recovery: memory decoding is still on.
    drop(failing);
    let mut recovered = Netdev::open(&Arc::new(Hca::boot(&machine)), &Options::default());
    assert_eq!((state(), machine.read(HEALTH_SYNDROME)), (0, 0));
    let frame = plain(a.hca.machine.mac, machine.mac, 700);
    a.send(&frame);
    assert_eq!(recovered.receive().frame, frame);
    let frame = plain(machine.mac, a.hca.machine.mac, 800);
    recovered.send(&frame);
    assert_eq!(a.receive().frame, frame);
    shut(recovered);
    others.into_iter().for_each(shut);
}
