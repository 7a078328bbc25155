//! VMMs that attack the daemon and the other guests through what they share with it.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, ftruncate, memfd_create};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_ism::abi::*;
use vmm_sys_util::eventfd::EventFd;

use crate::common::guest::encode;
use crate::common::*;

fn set_flags(eventfd: &EventFd, flags: OFlags) {
    // SAFETY: the eventfd has the descriptor until the end of this function at least.
    let fd = unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) };
    fcntl_setfl(fd, flags).unwrap();
}

/// Makes every `write` to an eventfd block.
fn block(eventfd: &EventFd) {
    eventfd.write(u64::MAX - 1).unwrap();
    set_flags(eventfd, OFlags::empty());
}

/// Returns the number of threads of this process with a name.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|found| found.trim_end() == name).count()
}

#[test]
fn a_call_that_blocks_its_writer_holds_up_neither_the_ringer_nor_third_guests() {
    let host = Host::default();
    let (mut hostile, mut victim, mut third) = (host.boot("hostile"), host.boot("victim"), host.boot("third"));
    let of_hostile = hostile.alloc_for_peer(victim.gid(), 1 << 16).unwrap();
    let of_third = third.alloc_for_peer(victim.gid(), 1 << 16).unwrap();
    let to_hostile = victim.attach(of_hostile.token).unwrap();
    let to_third = victim.attach(of_third.token).unwrap();
    hostile.events.arm();
    block(&hostile.events.call);
    victim.ring(to_hostile.offset);
    victim.ring(to_third.offset);
    let chunk = (of_third.offset / CHUNK_SIZE) as u32;
    assert_eq!(third.expect_event(), Event::Doorbells(vec![chunk]));
    third.send_message(hostile.gid(), 1, 2).unwrap();
    victim.ping();
    // The next VMM of the hostile guest is served.
    let seat = hostile.seat.clone().unwrap();
    hostile.kill();
    seat.boot().ping();
}

#[test]
fn a_kick_that_blocks_its_reader_does_not_keep_the_socket() {
    let host = Host::default();
    let hostile = host.boot("hostile");
    // Each kick is taken back: sooner or later a worker finds one, and then nothing to read.
    for _ in 0..10_000 {
        for ring in [&hostile.control, &hostile.doorbell] {
            set_flags(&ring.kick, OFlags::empty());
            ring.notify();
            set_flags(&ring.kick, OFlags::NONBLOCK);
            let _ = ring.kick.read();
        }
    }
    hostile.window.take_violations();
    let seat = hostile.seat.clone().unwrap();
    hostile.kill();
    seat.boot().ping();
}

#[test]
fn a_channel_that_never_answers_does_not_keep_the_socket() {
    let host = Host::default();
    let mut hostile = host.boot("hostile");
    let (asked, until_asked) = mpsc::channel();
    let (release, until_released) = mpsc::channel::<()>();
    hostile.window.before_next_map(move || {
        asked.send(()).unwrap();
        // Released by the end of the test.
        let _ = until_released.recv();
    });
    hostile.post_request(&encode(CMD_ALLOC, &Alloc { size: 4096.into() }), 64);
    until_asked.recv_timeout(PATIENCE).unwrap();
    hostile.connection().shutdown(std::net::Shutdown::Both).unwrap();
    let mut next = hostile.seat.clone().unwrap().boot();
    next.alloc(4096).unwrap();
    drop(release);
    hostile.window.take_violations();
    hostile.kill();
    next.ping();
}

/// A region of a file that a VMM passes and does not map itself.
fn region(file: &OwnedFd, memory_size: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size,
        userspace_addr: 0,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

/// Waits until the daemon has closed a connection.
fn assert_closed(mut connection: UnixStream) {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    while connection.read(&mut [0; 64]).unwrap() > 0 {}
}

#[test]
fn memory_that_is_truncated_ends_the_connection_of_its_guest_alone() {
    let host = Host::default();
    let mut victim = host.boot("victim");
    let options = Options {
        unsealed: true,
        ..Options::default()
    };
    let mut hostile = host.boot_with("hostile", options);
    let dmb = hostile.alloc_for_peer(victim.gid(), 1 << 16).unwrap();
    let attached = victim.attach(dmb.token).unwrap();
    hostile.ram.truncate();
    // The victim's thread finds the event ring of the hostile guest gone.
    victim.ring(attached.offset);
    assert_closed(hostile.connection());
    assert_eq!(victim.expect_event(), Event::PeerGone(hostile.gid()));
    let seat = hostile.seat.clone().unwrap();
    hostile.kill();
    seat.boot().ping();
    victim.ping();
}

#[test]
fn huge_pages_that_are_not_there_end_the_connection_at_most() {
    let host = Host::default();
    let mut victim = host.boot("victim");
    let seat = host.seat("hostile");
    let hostile = TestGuest::connect(seat.path(), Options::default());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let memfd = memfd_create("guest", flags).unwrap();
    ftruncate(&memfd, 4 << 20).unwrap();
    fcntl_add_seals(&memfd, SealFlags::SHRINK).unwrap();
    hostile.frontend.set_mem_table(&[region(&memfd, 4 << 20)]).unwrap();
    hostile.frontend.set_vring_num(0, 64).unwrap();
    let addresses = VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: 0,
        desc_table_addr: 0,
        used_ring_addr: 0x2000,
        avail_ring_addr: 0x1000,
        log_addr: None,
    };
    // The device reads the used index.
    let _ = hostile.frontend.set_vring_addr(0, &addresses);
    victim.ping();
    hostile.kill();
    seat.boot().ping();
}

#[test]
fn memory_beyond_the_limit_is_not_used() {
    let host = Host::default();
    let hostile = host.boot("hostile");
    let memfd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memfd, 1 << 44).unwrap();
    assert!(hostile.frontend.set_mem_table(&[region(&memfd, 1 << 44)]).is_err());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("memfd:guest "), "{maps}");
    let mut next = {
        let seat = hostile.seat.clone().unwrap();
        hostile.kill();
        seat.boot()
    };
    next.ping();
}

#[test]
fn a_stop_of_a_stopped_queue_starts_no_thread() {
    let host = Host::default();
    let mut hostile = host.boot("hostile");
    let bases = hostile.pause();
    for _ in 0..500 {
        hostile.frontend.get_vring_base(DOORBELL_QUEUE.into()).unwrap();
    }
    // A thread has its name when it runs.
    eventually("one thread watches", || threads("pause") == 1);
    hostile.resume(bases);
    hostile.ping();
    eventually("the watch ends with the pause", || threads("pause") == 0);
    let gid = hostile.gid();
    hostile.reset();
    assert_ne!(hostile.gid(), gid, "a reset after a pause is noticed");
}
