//! Clients that attack the daemon and the other guests through what they share with it.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};

use crate::client::*;
use crate::common::Purpose;
use crate::host::Host;

const EINVAL: u32 = 22;
const ENOMEM: u32 = 12;

const EVENTFD_TRIGGER: u32 = 0x24;
const MSIX: u32 = 2;

#[test]
fn an_eventfd_that_blocks_its_writer_holds_up_neither_peers_nor_the_next_client() {
    let mut host = Host::new();
    let mut client = host.driver();
    let full = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    client.set_irqs(MSIX, EVENTFD_TRIGGER, 0, 1, &[&full]).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    fcntl_setfl(&full, OFlags::empty()).unwrap();
    // As the thread of a peer does.
    let msix = host.parts.msix.clone();
    let peer = thread::spawn(move || (0..3).for_each(|_| msix.raise(0)));
    host.wait_for("the interrupt is raised", |_| peer.is_finished());
    drop(client);
    assert_eq!(host.driver().read(CONFIG, 0, 2), Ok(vec![0xb3, 0x15]));
    host.server.stop();
    assert_eq!(events(&full), u64::MAX);
}

#[test]
fn only_eventfds_become_interrupts() {
    let host = Host::new();
    let mut client = host.driver();
    let good = event();
    client.set_irqs(MSIX, EVENTFD_TRIGGER, 0, 1, &[&good]).unwrap();
    let (_reader, pipe) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = memory(0x1000);
    for bad in [pipe.as_fd(), socket.as_fd(), file.as_fd()] {
        let request = words(&[20, EVENTFD_TRIGGER, MSIX, 0, 2]);
        assert_eq!(
            client.call_with(SET_IRQS, &request, &[event().as_fd(), bad]),
            Err(EINVAL)
        );
    }
    host.parts.msix.raise(0);
    assert_eq!(events(&good), 1, "a refused request changes nothing");
}

#[test]
fn memory_that_is_truncated_ends_the_connection_of_its_client_alone() {
    let (host, other) = (Host::new(), Host::new());
    let (mut client, mut victim) = (host.driver(), other.driver());
    let (file, of_victim) = (memory(0x4000), memory(0x4000));
    of_victim.write_all_at(b"kept", 0x2000).unwrap();
    client.dma_map(3, 0, 0, 0x4000, &[file.as_fd()]).unwrap();
    victim.dma_map(3, 0, 0, 0x4000, &[of_victim.as_fd()]).unwrap();
    file.set_len(0).unwrap();
    let mut data = [1; 4];
    host.parts.dma.read(Purpose::Gather, 0x2000, &mut data).unwrap();
    assert_eq!(data, [0; 4]);
    assert!(client.is_closed());
    other.parts.dma.read(Purpose::Gather, 0x2000, &mut data).unwrap();
    assert_eq!(&data, b"kept");
    assert_eq!(victim.read(CONFIG, 0, 2), Ok(vec![0xb3, 0x15]));
    let mut next = host.driver();
    next.dma_map(3, 0, 0, 0x4000, &[of_victim.as_fd()]).unwrap();
    host.parts.dma.read(Purpose::Gather, 0x2000, &mut data).unwrap();
    assert_eq!(&data, b"kept");
}

#[test]
fn a_client_that_maps_without_end_leaves_room_for_the_others() {
    let (host, other) = (Host::new(), Host::new());
    host.parts.dma.set_max_bytes(1 << 40);
    let mut client = host.driver();
    let file = memory(1 << 46);
    assert_eq!(client.dma_map(3, 0, 0, 1 << 46, &[file.as_fd()]), Err(ENOMEM));
    // Each maps one part of another file.
    let mut taken = 0;
    for number in 0..1000_u64 {
        let file = memory(1 << 20);
        if client.dma_map(3, 0, number << 20, 1 << 20, &[file.as_fd()]).is_ok() {
            taken += 1;
        }
    }
    assert_eq!(taken, 128);
    let mut victim = other.driver();
    victim.dma_map(3, 0, 0, 1 << 30, &[file.as_fd()]).unwrap();
}
