//! Frames whose delivery takes many steps, which their receiver made: they wait for its own thread. The NICs of these
//! tests have no threads, so that turns can be counted.

use std::sync::Arc;

use mlx5_prm::steering::FteMatchParam;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use mlx5_test_driver::steering::{Entry, Table, To, action, alloc_counter, destination, query_counter};
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, PortSnapshot};
use vhost_nic::pci::{FunctionConfig, FunctionParts, Identity, PciFunction};

use crate::frames::plain;
use crate::inspect::Inspect;
use crate::nic::{NicFunction, VECTORS, config};

/// Groups that every frame passes at a receiver that is slow on purpose.
const GROUPS: u32 = 600;
/// Level of its table, before those of the driver.
const LEVEL: u8 = 40;
/// Frames of the backlog that a NIC receives in a turn.
const TURN: usize = 16;

/// A guest whose NIC does nothing of its own accord.
fn guest(switch: &Arc<Switch>, number: u8) -> Netdev {
    let (config, parts) = (config(number), FunctionParts::new(VECTORS));
    let nic = Nic::without_thread(&config, &parts).unwrap();
    nic.connect(switch);
    let (identity, mac) = (Identity::default(), config.mac);
    let function = Arc::new(PciFunction::new(FunctionConfig { identity, mac }, parts, nic.clone()));
    boot(&Arc::new(Machine::new(Arc::new(NicFunction { nic, function }), mac.0)))
}

fn boot(machine: &Arc<Machine>) -> Netdev {
    Netdev::open(&Arc::new(Hca::boot(machine)), &Options::default())
}

fn mac(guest: &Netdev) -> [u8; 6] {
    guest.hca.machine.mac
}

fn port(guest: &Netdev) -> PortSnapshot {
    guest.hca.machine.nic().summary().port
}

/// Makes every frame pass many groups before the entry that forwards it. Returns the flow counter of the entry.
fn slow_down(guest: &Netdev, to: &[To]) -> u32 {
    let hca = &guest.hca;
    let (table, counter) = (Table::create(hca, LEVEL, 10).unwrap(), alloc_counter(hca).unwrap());
    for index in 0..GROUPS {
        table.create_group(hca, index..=index, &destination([0xff; 6])).unwrap();
    }
    forward_all(guest, table, GROUPS, to, counter);
    counter
}

fn forward_all(guest: &Netdev, table: Table, index: u32, to: &[To], counter: u32) {
    let hca = &guest.hca;
    let value = &FteMatchParam::default();
    let group = table.create_group(hca, index..=index, value).unwrap();
    let entry = Entry {
        group,
        index,
        value,
        action: action::FORWARD | action::COUNT,
        to,
        counters: &[counter],
        tag: 0,
    };
    table.set(hca, &entry).unwrap();
    table.set_root(hca).unwrap();
}

/// Frame number `number` from one guest to another.
fn frame(from: [u8; 6], to: [u8; 6], number: usize) -> Vec<u8> {
    plain(from, to, 60 + number)
}

/// Posts a frame, and has the sender's NIC take one turn. Returns whether it was sent and completed in this turn.
fn send(guest: &mut Netdev, frame: &[u8]) -> bool {
    let place = guest.place(frame);
    let channel = &mut guest.channels[0];
    channel.sq.send(&Request {
        data: &[(place.address(), frame.len() as u32)],
        ..Request::default()
    });
    guest.hca.machine.nic().step();
    let completed = channel.send_cq.poll().is_some();
    channel.send_cq.release();
    completed
}

fn step(guest: &Netdev) {
    guest.hca.machine.nic().step();
}

/// Takes the frames that have arrived.
fn received(guest: &mut Netdev) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| guest.poll().map(|(_, received)| received.frame)).collect()
}

#[test]
fn a_frame_that_takes_many_steps_waits_for_the_thread_of_its_receiver() {
    let switch = Switch::new();
    let [mut sender, mut slow] = [1, 2].map(|number| guest(&switch, number));
    let counter = slow_down(&slow, &[To::Tir(slow.direct[0])]);
    let frames: Vec<Vec<u8>> = (0..10).map(|number| frame(mac(&sender), mac(&slow), number)).collect();
    for frame in &frames {
        assert!(send(&mut sender, frame), "its sender is done with it");
    }
    assert!(received(&mut slow).is_empty());
    assert_eq!(
        (port(&slow).backlogged, query_counter(&slow.hca, counter).unwrap().0),
        (10, 0)
    );
    step(&slow);
    assert_eq!(received(&mut slow), frames);
    let PortSnapshot {
        received,
        backlogged,
        backlog_dropped,
        unmatched,
        steering_limit,
        ..
    } = port(&slow);
    assert_eq!((received, backlogged, backlog_dropped), (10, 10, 0));
    assert_eq!((unmatched, steering_limit), (0, 0));
    assert_eq!(
        query_counter(&slow.hca, counter).unwrap().0,
        10,
        "each frame is counted once"
    );
}

#[test]
fn a_frame_does_not_overtake_one_that_waits() {
    let switch = Switch::new();
    let [mut sender, mut slow] = [1, 2].map(|number| guest(&switch, number));
    slow_down(&slow, &[To::Tir(slow.direct[0])]);
    let frames: Vec<Vec<u8>> = (0..3).map(|number| frame(mac(&sender), mac(&slow), number)).collect();
    send(&mut sender, &frames[0]);
    // From now on, frames take few steps.
    slow.l2.set_root(&slow.hca).unwrap();
    send(&mut sender, &frames[1]);
    assert!(received(&mut slow).is_empty());
    step(&slow);
    assert_eq!(received(&mut slow), frames[..2]);
    // Nothing waits: the sender delivers again.
    send(&mut sender, &frames[2]);
    assert_eq!(received(&mut slow), frames[2..]);
    assert_eq!(port(&slow).backlogged, 2);
}

#[test]
fn the_copies_that_a_budget_has_no_steps_for_are_made_later_and_none_is_made_twice() {
    const COPIES: usize = 40;
    let switch = Switch::new();
    let [mut sender, mut slow] = [1, 2].map(|number| guest(&switch, number));
    let (table, counter) = (
        Table::create(&slow.hca, LEVEL, 10).unwrap(),
        alloc_counter(&slow.hca).unwrap(),
    );
    forward_all(&slow, table, 0, &[To::Tir(slow.direct[0]); COPIES], counter);
    let frame = frame(mac(&sender), mac(&slow), 0);
    assert!(send(&mut sender, &frame));
    let before = received(&mut slow).len();
    assert!((1..COPIES).contains(&before), "{before} copies on the sender's thread");
    step(&slow);
    let after = received(&mut slow);
    assert_eq!(after, vec![frame; COPIES - before]);
    assert_eq!(
        (port(&slow).received, query_counter(&slow.hca, counter).unwrap().0),
        (1, 1)
    );
}

#[test]
fn frames_that_wait_end_with_a_reset() {
    let switch = Switch::new();
    let [mut sender, slow] = [1, 2].map(|number| guest(&switch, number));
    slow_down(&slow, &[To::Tir(slow.direct[0])]);
    let machine = slow.hca.machine.clone();
    let (own, address) = (mac(&sender), mac(&slow));
    for number in 0..5 {
        send(&mut sender, &frame(own, address, number));
    }
    drop(slow);
    machine.device().reset();
    let summary = machine.nic().summary();
    assert_eq!((summary.port.refused, summary.host_memory.used_bytes), (5, 0));
    machine.nic().step();
    machine.enable();
    let mut next = boot(&machine);
    machine.nic().step();
    assert!(received(&mut next).is_empty());
    let last = frame(own, address, 9);
    send(&mut sender, &last);
    assert_eq!(received(&mut next), [last]);
}

/// Sixty-four guests of which some flood a slow one.
fn flooded_by(flooders: usize) {
    const ROUNDS: usize = 40;
    let flood = 512 / flooders;
    let switch = Switch::new();
    let mut guests: Vec<Netdev> = (1..=64).map(|number| guest(&switch, number)).collect();
    // The switch learns where everybody is: nothing is flooded to all ports.
    for sender in 0..guests.len() {
        let hello = frame(mac(&guests[sender]), [0xff; 6], 0);
        assert!(send(&mut guests[sender], &hello));
        guests.iter_mut().for_each(|guest| drop(received(guest)));
    }
    let mut slow = guests.pop().unwrap();
    slow_down(&slow, &[To::Tir(slow.direct[0])]);
    let count = flooders;
    let (flooders, others) = guests.split_at_mut(count);
    let [a, b, patient, ..] = others else { unreachable!() };
    let mut sent = 0;
    for round in 0..ROUNDS {
        for flooder in &mut *flooders {
            for _ in 0..flood {
                let frame = frame(mac(flooder), mac(&slow), 1400);
                assert!(send(flooder, &frame), "a flood is its sender's work alone");
                sent += 1;
            }
        }
        // A round trip beside the flood takes a turn of each.
        let [request, response] = [frame(mac(a), mac(b), round), frame(mac(b), mac(a), round)];
        assert!(send(a, &request));
        assert_eq!(received(b), [request]);
        assert!(send(b, &response));
        assert_eq!(received(a), [response]);
        // A frame to the slow one waits for one frame of each flooder at most.
        let frame = frame(mac(patient), mac(&slow), round);
        assert!(send(patient, &frame));
        let mut turns = 0;
        while !received(&mut slow).contains(&frame) {
            step(&slow);
            turns += 1;
            assert!(turns <= (count + 1).div_ceil(TURN), "{turns} turns");
        }
        sent += 1;
    }
    let PortSnapshot {
        backlogged,
        backlog_dropped,
        received,
        ..
    } = port(&slow);
    assert!(backlog_dropped > 0, "the flood is more than there is room for");
    assert_eq!(backlogged + backlog_dropped, sent);
    assert!(received >= ROUNDS as u64);
}

#[test]
fn a_slow_guest_among_sixty_four_that_one_floods() {
    flooded_by(1);
}

#[test]
fn a_slow_guest_among_sixty_four_that_half_of_them_flood() {
    flooded_by(32);
}
