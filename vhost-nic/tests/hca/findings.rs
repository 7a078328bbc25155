//! Mistakes of drivers, and the findings about them.

use std::sync::Arc;

use mlx5_prm::domain::{DeallocPdIn, DeallocPdOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::EventType;
use mlx5_test_driver::domain::alloc_pd;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::memory::{BASE, SIZE};
use mlx5_test_driver::netdev::Options;
use mlx5_test_driver::rq::segment;
use mlx5_test_driver::wait::eventually;
use vhost_daemon::finding::{Kind, Source, Subscription};
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::net::Switch;
use zerocopy::IntoBytes;

use crate::found::{Found, found};
use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{Lan, shut};
use crate::nic::machine;

#[test]
fn what_a_driver_leaves_at_a_reset_is_suspicious() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let hca = Hca::boot(&machine);
    let pd = alloc_pd(&hca).unwrap();
    let pages = machine.nic().snapshot().pages as u64;
    machine.device().reset();
    let uar = hca.uar;
    let mut all = found(&machine);
    let page = all.pop().unwrap();
    let expected = Found::new(Finding::PageLeft, page.object.kind, pages, &page.evidence);
    assert_eq!((&page, page.evidence.len()), (&expected, 64));
    let numbers = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_be_bytes()).collect() };
    let expected = [
        Found::new(Finding::ObjectLeft, "eq", 1, &numbers(&[1, 2, 3])),
        Found::new(Finding::ObjectLeft, "pd", pd.into(), &numbers(&[pd])),
        Found::new(Finding::ObjectLeft, "uar", uar.into(), &numbers(&[uar])),
    ];
    assert_eq!(all, expected);
    // Nothing is left any more.
    machine.device().reset();
    assert_eq!(found(&machine).len(), 4);
    assert_eq!(machine.nic().snapshot().suspicions.get("object_left"), Some(&3));
}

#[test]
fn reserved_bits_are_found_once_per_opcode() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let hca = Hca::boot(&machine);
    let dealloc = |pd, reserved| {
        let mut input = DeallocPdIn::default();
        input.set_opcode(Opcode::DEALLOC_PD.0);
        input.set_pd(pd);
        input.as_mut_bytes()[15] = reserved;
        hca.commands
            .call::<_, DeallocPdOut>(Opcode::DEALLOC_PD, &input)
            .unwrap();
        input
    };
    dealloc(alloc_pd(&hca).unwrap(), 0);
    assert_eq!(found(&machine), []);
    let input = dealloc(alloc_pd(&hca).unwrap(), 1);
    dealloc(alloc_pd(&hca).unwrap(), 2);
    let [found] = &found(&machine)[..] else {
        panic!("one finding");
    };
    let slot = found.object.number;
    assert_eq!(
        *found,
        Found::new(Finding::ReservedBits, "command_slot", slot, input.as_bytes())
    );
    hca.shutdown();
}

#[test]
fn memory_that_never_was_mapped_is_outside() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let list = [segment(BASE + SIZE - 8, 2048, b.key)];
    b.channels[0].rq.write_wqe(0, &list);
    a.send(&plain(a.hca.machine.mac, b.hca.machine.mac, 100));
    b.channels[0].receive_cq.wait();
    let number = u64::from(b.channels[0].rq.number);
    let expected = [
        Found::new(Finding::BadReceiveWqe, "queue", number, list.as_bytes()),
        Found::new(Finding::DmaOutside, "queue", number, &(BASE + SIZE - 8).to_be_bytes()),
    ];
    assert_eq!(found(&b.hca.machine), expected);
    lan.guests.into_iter().for_each(shut);
}

#[test]
fn entries_and_records_outside_memory_are_found_with_their_addresses() {
    let options = Options {
        channels: 2,
        ..Options::default()
    };
    let lan = Lan::new(1, &options);
    let mut guest = lan.guests.into_iter().next().unwrap();
    let machine = guest.hca.machine.clone();
    let channel = &mut guest.channels[0];
    let cq = u64::from(channel.send_cq.number);
    let (pages, _) = channel.send_cq.addresses();
    machine.function().dma().unmap(pages[0] & !0xfff, 4096).unwrap();
    channel.sq.nop();
    eventually("a finding", || found(&machine).len() == 2);
    let [lost, dma] = &found(&machine)[..] else {
        panic!("two findings");
    };
    let expected = Found::new(Finding::LostCqe, "cq", cq, &lost.evidence);
    assert_eq!((lost, lost.evidence.len()), (&expected, 64));
    let expected = Found::new(Finding::DmaAfterUnmap, "cq", cq, &pages[0].to_be_bytes());
    assert_eq!(*dma, expected);
    // The first queue is in error now.
    let (_, record) = guest.channels[1].sq.addresses();
    machine.function().dma().unmap(record & !0xfff, 4096).unwrap();
    guest.channels[1].sq.nop();
    eventually("more findings", || found(&machine).len() >= 4);
    let number = u64::from(guest.channels[1].sq.number);
    // The send index is the second word.
    let evidence = (record + 4).to_be_bytes();
    let expected = Found::new(Finding::UnreadableDoorbellRecord, "queue", number, &evidence);
    assert!(found(&machine).contains(&expected));
    machine.function().dma().unmap_all();
    machine.map();
}

#[test]
fn events_outside_memory_and_beyond_their_queue_are_found() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let hca = Hca::boot(&machine);
    // 32 entries, one per command, and the driver reads none.
    hca.commands.use_events(None).unwrap();
    for _ in 0..40 {
        alloc_pd(&hca).unwrap();
    }
    let full = found(&machine);
    let first = full.first().unwrap();
    let expected = Found::new(Finding::EqOverrun, "eq", 1, &first.evidence);
    assert_eq!((first, first.evidence.len()), (&expected, 64));
}

#[test]
fn an_event_that_cannot_be_written_is_lost() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let _hca = Hca::boot(&machine);
    machine.function().dma().unmap_all();
    machine.nic().set_cable(false);
    let [lost, dma] = &found(&machine)[..] else {
        panic!("two findings");
    };
    let expected = Found::new(Finding::LostEqe, "eq", 2, &lost.evidence);
    assert_eq!((lost, lost.evidence[1]), (&expected, EventType::PortChange as u8));
    assert_eq!(*dma, Found::new(Finding::DmaAfterUnmap, "eq", 2, &dma.evidence));
}

#[test]
fn a_refused_command_is_found_with_its_input() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    let hca = Hca::boot(&machine);
    let mut input = DeallocPdIn::default();
    input.set_opcode(Opcode::DEALLOC_PD.0);
    input.set_pd(0x77);
    hca.commands
        .call::<_, DeallocPdOut>(Opcode::DEALLOC_PD, &input)
        .unwrap_err();
    let [refused] = &found(&machine)[..] else {
        panic!("one finding");
    };
    let slot = refused.object.number;
    let expected = Found::new(Finding::CommandRefused, "command_slot", slot, input.as_bytes());
    assert_eq!(*refused, expected);
    hca.shutdown();
}

#[test]
fn an_access_beside_all_registers_is_found_with_its_bytes() {
    let machine = machine(&Switch::new(), 1);
    machine.write(0x8000, 0x1234_5678);
    let expected = Found::new(Finding::StrayAccess, "bar_offset", 0x8000, &[0x12, 0x34, 0x56, 0x78]);
    assert_eq!(found(&machine), [expected]);
}

#[test]
fn findings_are_passed_on_as_they_happen() {
    let machine = machine(&Switch::new(), 1);
    let subscription = Subscription::default();
    machine.nic().findings().subscribe(&subscription);
    machine.write_pair(16 * 4096 + 0x800, [0, 0, 0, 0, 0, 0, 0x40, 0]);
    let (records, dropped) = subscription.take(std::time::Duration::ZERO);
    let [record] = &records[..] else { panic!("one record") };
    assert_eq!(
        (&*record.guest, record.kind, dropped),
        ("nic1", Finding::StrayDoorbell.info(), 0)
    );
    assert_eq!(record.text, "doorbell in UAR 16, which is not allocated");
    let expected = Found::new(Finding::StrayDoorbell, "uar", 16, &[0, 0, 0, 0, 0, 0, 0x40, 0]);
    assert_eq!(found(&machine), [expected]);
}

#[test]
fn every_kind_is_expected_with_its_bytes_by_a_test() {
    let sources = [
        include_str!("findings.rs"),
        include_str!("mistakes.rs"),
        include_str!("commands.rs"),
        include_str!("delivery.rs"),
        include_str!("registers.rs"),
        include_str!("../rdma/findings.rs"),
        include_str!("../rdma/faults.rs"),
    ];
    let sources: String = sources.concat().split_whitespace().collect();
    // Kinds that a loop passes on to what it expects.
    let looped: Vec<&str> = sources
        .split("forkindin[")
        .skip(1)
        .filter(|rest| rest.contains("Found::new(kind,"))
        .filter_map(|rest| rest.split(']').next())
        .flat_map(|kinds| kinds.split(','))
        .collect();
    let expected = |kind: &&Finding| {
        let variant = format!("Finding::{kind:?}");
        sources.contains(&format!("Found::new({variant},")) || looped.contains(&&*variant)
    };
    let missing: Vec<&Finding> = Finding::ALL.iter().filter(|kind| !expected(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
