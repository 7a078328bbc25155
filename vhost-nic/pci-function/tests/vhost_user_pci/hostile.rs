//! Guests that break the rules.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pci_function::attachment::vhost_user_pci::Finding;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vhost_daemon::finding::{Kind, Source};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::driver::{
    CFG_READ, CFG_WRITE, COMMAND, DATA, Descriptor, Driver, INTERRUPT, MEMORY, MEMORY_SIZE, MMIO_READ, MMIO_WRITE, MSI,
    NEXT, QUEUE_SIZE, SOON, WRITE, available_ring, header,
};
use super::host::{Host, assert_works};
use super::message;

/// A finding: kind, virtqueue and evidence.
type Found = (&'static str, u64, Vec<u8>);

/// A finding to be expected.
fn expected(kind: Finding, queue: usize, evidence: &[u8]) -> Found {
    (kind.name(), queue as u64, evidence.to_vec())
}

/// The findings so far, in order.
fn found(host: &Host) -> Vec<Found> {
    let records = host.server.stats().findings().recent();
    let found = records.iter().map(|record| {
        assert_eq!(record.object.kind, "virtqueue");
        (record.kind.name, record.object.number, record.evidence.clone())
    });
    found.collect()
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        length,
        flags,
        next,
    }
}

/// Sends a chain of the given descriptors, from descriptor 0 on; returns the number of bytes written to it.
fn send(driver: &mut Driver, chain: &[Descriptor]) -> usize {
    for (index, &descriptor) in chain.iter().enumerate() {
        driver.describe(COMMAND, index as u16, descriptor);
    }
    driver.offer(COMMAND, 0);
    driver.kick(COMMAND);
    driver.reap(COMMAND).1
}

#[test]
fn chains_that_loop_break_off_or_point_nowhere_come_back_empty() {
    let host = Host::new();
    let mut driver = host.driver();
    driver.put(DATA, &header(CFG_READ, 0, 4, 0));
    let good = descriptor(DATA, 16, NEXT, 1);
    let bad: [&[Descriptor]; 7] = [
        &[good, descriptor(DATA + 64, 4, WRITE | NEXT, 0)],
        &[good, descriptor(DATA + 64, 4, WRITE | NEXT, QUEUE_SIZE)],
        &[good, descriptor(MEMORY + MEMORY_SIZE - 2, 4, WRITE, 0)],
        &[good, descriptor(0, 4, WRITE, 0)],
        &[good, descriptor(u64::MAX - 1, 4, WRITE, 0)],
        &[descriptor(MEMORY - 8, 16, NEXT, 1), descriptor(DATA + 64, 4, WRITE, 0)],
        &[good, descriptor(DATA + 64, u32::MAX, WRITE, 0)],
    ];
    for chain in bad {
        assert_eq!(send(&mut driver, chain), 0, "{chain:?}");
    }
    // The evidence is the index of the first descriptor.
    assert_eq!(
        found(&host),
        vec![expected(Finding::BadChain, COMMAND, &[0, 0]); bad.len()]
    );
    assert_works(&mut driver);
}

#[test]
fn commands_that_make_no_sense_read_as_ones_or_are_ignored() {
    let host = Host::new();
    let mut driver = host.driver();
    let mut bad = vec![vec![CFG_READ; 15]];
    assert!(driver.command(&[CFG_READ; 15], &[], 4).is_empty(), "no whole header");
    for op in [0, 6, MSI, 8, 255] {
        bad.push(header(op, 0, 4, 0));
        assert_eq!(
            driver.command(&header(op, 0, 4, 0), &[], 4),
            [0xff; 4],
            "operation {op}"
        );
    }
    for size in [0, 3, 5, 16] {
        bad.push(header(CFG_READ, 0, size, 0));
        let answer = driver.command(&header(CFG_READ, 0, size, 0), &[], 16);
        assert_eq!(answer, vec![0xff; size as usize], "{size} bytes of configuration");
    }
    let answer = driver.command(&header(MMIO_READ, 0, u32::MAX, 0), &[], 16);
    assert_eq!(answer, [0xff; 16]);
    // arch/um/drivers/virtio_pcidev.c sends this for memset_io().
    let mut fill = header(CFG_WRITE, 0, 64, 0x8000);
    fill.push(0xa5);
    assert!(driver.command(&fill, &[], 0).is_empty());
    let cut = header(MMIO_WRITE, 0, 8, 0x8000);
    assert!(driver.command(&cut, &[1, 2, 3], 0).is_empty(), "less data than said");
    assert!(driver.command(&cut, &[], 0).is_empty(), "no data");
    assert_eq!(host.registers.bytes.lock()[0x8000..0x8008], [0; 8]);
    let [too_long, less, none] = [header(MMIO_READ, 0, u32::MAX, 0), [&cut[..], &[1, 2, 3]].concat(), cut];
    bad.extend([too_long, fill, less, none]);
    let bad: Vec<Found> = bad
        .iter()
        .map(|bytes| expected(Finding::BadCommand, COMMAND, bytes))
        .collect();
    assert_eq!(found(&host), bad);
    assert_works(&mut driver);
}

#[test]
fn a_buffer_too_small_gets_what_fits() {
    let host = Host::new();
    let mut driver = host.driver();
    driver.write(0x8000, b"as usual");
    assert_eq!(driver.command(&header(MMIO_READ, 0, 8, 0x8000), &[], 3), *b"as ");
    assert!(driver.command(&header(MMIO_READ, 0, 8, 0x8000), &[], 0).is_empty());
    let short = expected(Finding::ShortBuffer, COMMAND, &header(MMIO_READ, 0, 8, 0x8000));
    assert_eq!(found(&host), [short.clone(), short.clone()]);

    driver.give_buffers(0, 1, 19);
    host.function.msix().raise(1);
    assert_eq!(driver.reap(INTERRUPT), (0, 0));
    driver.give_buffers(1, 1, 20);
    assert_eq!(driver.interrupt(), message(1));
    // Of an interrupt, the index of the descriptor.
    let of_interrupt = expected(Finding::ShortBuffer, INTERRUPT, &[0, 0]);
    assert_eq!(found(&host), [short.clone(), short, of_interrupt]);
}

#[test]
fn a_ring_with_impossible_indices_rests_until_the_next_connection() {
    let host = Host::new();
    let mut driver = host.driver();
    driver.put(available_ring(COMMAND) + 2, &0x8000_u16.to_le_bytes());
    driver.kick(COMMAND);
    assert_eq!(driver.try_reap(COMMAND, Duration::from_millis(50)), None);
    // The index of the next entry.
    let bad = expected(Finding::BadRing, COMMAND, &driver.available[COMMAND].to_be_bytes());
    assert_eq!(found(&host), std::slice::from_ref(&bad));
    driver.kick(COMMAND);
    assert_eq!(driver.try_reap(COMMAND, Duration::from_millis(50)), None);
    assert_eq!(found(&host), [bad]);
    drop(driver);
    host.wait_for_reset(2);
    assert_works(&mut host.driver());
}

#[test]
fn a_kick_that_is_taken_back_costs_nothing() {
    let host = Host::new();
    let mut driver = host.driver();
    for _ in 0..1000 {
        driver.kick(COMMAND);
        let _ = driver.kicks[COMMAND].read();
    }
    assert_works(&mut driver);
}

#[test]
fn whatever_a_guest_sends_the_device_goes_on() {
    let host = Host::new();
    let driver = RefCell::new(host.driver());
    let address = prop_oneof![
        Just(DATA),
        DATA..DATA + 0x100,
        MEMORY..MEMORY + MEMORY_SIZE + 64,
        any::<u64>(),
    ];
    let length = prop_oneof![0..64_u32, any::<u32>()];
    // Without VIRTQ_DESC_F_INDIRECT, which was not negotiated.
    let chain = vec((address, length, 0..4_u16, prop_oneof![0..8_u16, any::<u16>()]), 1..6);
    let op = prop_oneof![0..10_u8, any::<u8>()];
    let place = prop_oneof![0..0x9000_u64, any::<u64>()];
    let command = (op, 0..3_u8, prop_oneof![0..20_u32, any::<u32>()], place);
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&(command, chain), |((op, bar, size, place), chain)| {
        let mut driver = driver.borrow_mut();
        driver.put(DATA, &header(op, bar, size, place));
        let chain: Vec<_> = chain
            .into_iter()
            .map(|(address, length, flags, next)| descriptor(address, length, flags, next))
            .collect();
        send(&mut driver, &chain);
        Ok(())
    });
    outcome.unwrap();
    drop(driver);
    host.wait_for_reset(2);
    assert_works(&mut host.driver());
}

/// Sockets as User Mode Linux has for calls.
fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

#[track_caller]
fn assert_notified(call: &OwnedFd) {
    let begin = Instant::now();
    let mut count = [0; 8];
    while rustix::io::read(call, &mut count).is_err() {
        assert!(begin.elapsed() < SOON, "the guest is notified");
    }
    assert_eq!(count, 1_u64.to_ne_bytes());
}

#[test]
fn a_call_socket_that_blocks_its_writer_holds_up_neither_peers_nor_the_next_guest() {
    let host = Host::new();
    let mut driver = host.driver();
    let (reader, writer) = pair();
    driver.call_by(INTERRUPT, &writer);
    driver.give_buffers(0, 3, 20);
    host.function.msix().raise(1);
    assert_eq!(driver.interrupt(), message(1));
    assert_notified(&reader);

    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    let function = host.function.clone();
    let peer = std::thread::spawn(move || (2..4).for_each(|vector| function.msix().raise(vector)));
    assert_eq!(driver.interrupt(), message(2));
    assert_eq!(driver.interrupt(), message(3));
    peer.join().unwrap();
    drop(driver);
    let mut next = host.driver();
    assert_works(&mut next);
    let (own, writer) = pair();
    next.call_by(INTERRUPT, &writer);
    next.give_buffers(0, 1, 20);
    host.function.msix().raise(1);
    assert_eq!(next.interrupt(), message(1));
    assert_notified(&own);
}

#[test]
fn memory_that_is_truncated_ends_the_connection() {
    let host = Host::new();
    let driver = host.driver();
    let region = driver.memory.iter().next().unwrap();
    region.file_offset().unwrap().file().set_len(0).unwrap();
    driver.kick(COMMAND);
    host.wait_for_reset(2);
    drop(driver);
    assert_works(&mut host.driver());
}

#[test]
fn every_kind_is_expected_with_its_bytes_by_a_test() {
    let source: String = include_str!("hostile.rs").split_whitespace().collect();
    let missing: Vec<&Finding> = Finding::ALL
        .iter()
        .filter(|kind| !source.contains(&format!("expected(Finding::{kind:?},")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
