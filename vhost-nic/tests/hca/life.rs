//! End of life: resets, drivers that vanish, guests that leave while others send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx5_prm::init_hca::{TeardownHcaIn, TeardownHcaOut};
use mlx5_prm::opcode::Opcode;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;

use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{Lan, shut};

/// `MLX5_TEARDOWN_HCA_IN_PROFILE_PREPARE_FAST_TEARDOWN`.
const FAST: u16 = 2;
/// `cmdq_addr_l_sz` of the initialization segment with the NIC interface state, and the state "disabled".
const INTERFACE: u64 = 0x14;
const DISABLED: u32 = 1 << 8;
/// `cmd_dbell` of the initialization segment.
const COMMAND_DOORBELL: u64 = 0x18;

/// Stops the other threads of a test when dropped, also on panic.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reset_forgets_everything_and_the_driver_can_begin_again() {
    let mut lan = Lan::new(2, &Options::default());
    let mut receiver = lan.guests.pop().unwrap();
    for _ in 0..3 {
        let machine = Arc::clone(&receiver.hca.machine);
        machine.device().reset();
        let snapshot = machine.nic().snapshot();
        assert!(snapshot.objects.is_empty(), "{:?}", snapshot.objects);
        assert_eq!(snapshot.pages, 0);
        assert!(!snapshot.started);
        drop(receiver);
        machine.enable();
        receiver = Netdev::open(&Arc::new(Hca::boot(&machine)), &Options::default());
        let sender = &mut lan.guests[0];
        let frame = plain(sender.hca.machine.mac, machine.mac, 500);
        sender.send(&frame);
        assert_eq!(receiver.receive().frame, frame);
    }
    shut(receiver);
    lan.end();
}

/// Frames in delivery and the statistics hold objects, too.
#[test]
fn an_object_that_is_destroyed_keeps_no_other_in_use_even_if_it_is_held() {
    let mut lan = Lan::new(1, &Options::default());
    let guest = lan.guests.pop().unwrap();
    let machine = Arc::clone(&guest.hca.machine);
    let held = machine.nic().with_objects(|hca| {
        (
            (hca.tises.all(), hca.tirs.all(), hca.rqts.all()),
            (hca.queues.all(), hca.cqs.all(), hca.eqs.table.all()),
        )
    });
    let ((tises, tirs, rqts), (queues, cqs, eqs)) = &held;
    let counts = [tises.len(), tirs.len(), rqts.len(), queues.len(), cqs.len(), eqs.len()];
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    // No command is refused.
    shut(guest);
    drop(held);
}

/// As the driver of a kernel that takes over from one that has crashed.
#[test]
fn a_driver_that_begins_anew_finds_nothing_of_the_one_before() {
    let mut lan = Lan::new(2, &Options::default());
    let crashed = lan.guests.pop().unwrap();
    let machine = Arc::clone(&crashed.hca.machine);
    drop(crashed);
    let mut receiver = Netdev::open(&Arc::new(Hca::boot(&machine)), &Options::default());
    let sender = &mut lan.guests[0];
    let frame = plain(sender.hca.machine.mac, machine.mac, 500);
    sender.send(&frame);
    assert_eq!(receiver.receive().frame, frame);
    // Only pages and objects of the second driver are there to be taken back.
    shut(receiver);
    lan.end();
}

#[test]
fn a_fast_teardown_leaves_no_object() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let mut input = TeardownHcaIn::default();
    input.set_profile(FAST);
    b.hca.commands.use_events(None);
    b.hca
        .commands
        .call::<_, TeardownHcaOut>(Opcode::TEARDOWN_HCA, &input)
        .unwrap();
    assert!(b.hca.machine.nic().snapshot().objects.is_empty());
    a.send(&plain(a.hca.machine.mac, b.hca.machine.mac, 60));
    b.expect_silence();
    assert_eq!(b.hca.machine.nic().snapshot().port.refused, 1);
}

#[test]
fn an_interface_that_is_switched_off_stops() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    b.hca.machine.write(INTERFACE, DISABLED);
    assert_eq!(b.hca.machine.read(INTERFACE) & 7 << 8, DISABLED);
    a.send(&plain(a.hca.machine.mac, b.hca.machine.mac, 60));
    b.expect_silence();
    assert!(b.hca.machine.nic().snapshot().objects.is_empty());
}

#[test]
fn a_function_reset_disables_the_interface_until_a_driver_sets_it_up() {
    let lan = Lan::new(1, &Options::default());
    let machine = Arc::clone(&lan.guests[0].hca.machine);
    let state = || machine.read(INTERFACE) & 7 << 8;
    assert_eq!(state(), 0);
    machine.device().reset();
    machine.enable();
    assert_eq!(state(), DISABLED, "the driver's health check sees it");
    // Commands of a driver that does not know are not looked for.
    machine.write(COMMAND_DOORBELL, 1);
    assert_eq!(state(), DISABLED);
    assert_eq!(machine.nic().snapshot().guest_errors.get("stray_access"), Some(&1));
    drop(lan);
    let guest = Netdev::open(&Arc::new(Hca::boot(&machine)), &Options::default());
    assert_eq!(state(), 0);
    shut(guest);
}

#[test]
fn a_reset_in_the_middle_of_traffic_harms_only_who_is_reset() {
    let mut lan = Lan::new(
        3,
        &Options {
            log_rq: 8,
            log_cq: 8,
            ..Options::default()
        },
    );
    let mut victim = lan.guests.pop().unwrap();
    let stop = AtomicBool::new(false);
    let target = victim.hca.machine.mac;
    let victim = std::thread::scope(|scope| {
        let _end = Ending(&stop);
        for guest in &mut lan.guests {
            let stop = &stop;
            scope.spawn(move || {
                let frame = plain(guest.hca.machine.mac, target, 1000);
                while !stop.load(Ordering::Relaxed) {
                    guest.send(&frame);
                }
            });
        }
        for round in 0..20 {
            let machine = Arc::clone(&victim.hca.machine);
            let frame = victim.receive().frame;
            assert_eq!(frame.len(), 1000);
            // The victim is reset while it sends, too.
            let block = victim.place(&frame);
            victim.channels[0].sq.send(&Request {
                data: &[(block.address(), 1000)],
                ..Request::default()
            });
            if round % 2 == 0 {
                machine.device().reset();
            } else {
                machine.function().dma().unmap_all();
                machine.device().reset();
                machine.map();
            }
            let used = machine.memory.used();
            drop(block);
            drop(victim);
            assert!(machine.memory.used() < used);
            machine.enable();
            victim = Netdev::open(
                &Arc::new(Hca::boot(&machine)),
                &Options {
                    log_rq: 8,
                    ..Options::default()
                },
            );
        }
        victim
    });
    shut(victim);
    for guest in lan.guests {
        assert_eq!(guest.hca.machine.nic().snapshot().guest_errors, Default::default());
        shut(guest);
    }
}

#[test]
fn queues_come_and_go_while_frames_arrive() {
    let mut lan = Lan::new(2, &Options::default());
    let receiver = lan.guests.pop().unwrap();
    let mut sender = lan.guests.pop().unwrap();
    let machine = Arc::clone(&receiver.hca.machine);
    let stop = AtomicBool::new(false);
    let frame = plain(sender.hca.machine.mac, machine.mac, 1000);
    std::thread::scope(|scope| {
        let _end = Ending(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sender.send(&frame);
            }
        });
        let hca = Arc::clone(&receiver.hca);
        let mut receiver = receiver;
        for _ in 0..20 {
            assert_eq!(receiver.receive().frame, frame);
            receiver.close();
            // The interface's memory is reused now: the device must not write to it.
            let others = machine.memory.allocate(16 << 20);
            others.write(0, &[0x3c; 16 << 20]);
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(others.read(0, 16 << 20).iter().all(|&byte| byte == 0x3c));
            drop(others);
            receiver = Netdev::open(&hca, &Options::default());
        }
        receiver.close();
        Arc::into_inner(hca).unwrap().shutdown();
    });
    shut(sender);
}
