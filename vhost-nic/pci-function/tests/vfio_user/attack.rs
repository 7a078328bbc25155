//! Clients that attack the daemon and the other guests through what they share with it.

use std::os::fd::AsFd;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};

use crate::client::*;
use crate::host::Host;

const EINVAL: u32 = 22;

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
