//! The daemon in its sandbox and under a service manager.

use std::os::fd::AsRawFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_daemon::testing::{
    Daemon, assert_confined, assert_needs_no_reader, assert_notifies, await_socket, eventually,
};

use crate::{PROGRAM, VFIO_PCI_CONFIG_REGION_INDEX};

/// VFIO_PCI_MSIX_IRQ_INDEX, and VFIO_IRQ_SET_DATA_EVENTFD with VFIO_IRQ_SET_ACTION_TRIGGER (linux/vfio.h).
const VFIO_PCI_MSIX_IRQ_INDEX: u32 = 2;
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;
/// Address of the command queue in the initialization segment; its doorbell follows.
const COMMAND_QUEUE: u64 = 0x10;

#[test]
fn every_thread_is_in_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    // Two filters of all threads, and those of the thread's kind.
    assert_confined(PROGRAM, dir.path(), &[("a", 4), ("a", 4), ("log", 4), ("vhost-nic", 3)]);
}

#[test]
fn the_service_manager_is_notified() {
    assert_notifies(PROGRAM, tempfile::tempdir().unwrap().path());
}

#[test]
fn a_reader_of_the_log_that_stalls_stops_nothing() {
    assert_needs_no_reader(PROGRAM, tempfile::tempdir().unwrap().path());
}

#[test]
fn a_guest_whose_memory_goes_away_is_served_in_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let mut command = PROGRAM.command();
    let daemon = Daemon::start(command.arg("--socket-path").arg(&path));
    await_socket(&path);
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, 0x4000).unwrap();
    let line = eventfd(0, EventfdFlags::empty()).unwrap();
    let mut client = vfio_user::Client::new(&path).unwrap();
    client.dma_map(0, 0x1_0000, 0x4000, memory.as_raw_fd()).unwrap();
    client
        .set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, EVENTFD_TRIGGER, 0, 1, &[line.as_raw_fd()])
        .unwrap();
    // Memory decoding and bus mastering, then the address of the command queue and the doorbell of its first entry.
    let both = [1 << 1 | 1 << 2, 0];
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, 4, &both).unwrap();
    client.region_write(0, COMMAND_QUEUE, &[0; 4]).unwrap();
    client
        .region_write(0, COMMAND_QUEUE + 4, &0x1_0000_u32.to_be_bytes())
        .unwrap();
    ftruncate(&memory, 0).unwrap();
    // The connection ends before or after the answer.
    let _ = client.region_write(0, COMMAND_QUEUE + 8, &1_u32.to_be_bytes());
    eventually("the end of the connection", || {
        client
            .region_read(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut [0; 2])
            .is_err()
    });
    vfio_user::Client::new(&path).unwrap().shutdown().unwrap();
    let log = daemon.log();
    let lost = "a: memory of the guest is gone; its connection ends";
    assert_eq!(log.iter().filter(|line| line.ends_with(lost)).count(), 1, "{log:#?}");
}
