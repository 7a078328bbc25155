//! SET_IRQS: eventfds of interrupts, and interrupts raised without one.

use std::os::fd::OwnedFd;

use crate::client::*;
use crate::host::Host;

const EINVAL: u32 = 22;

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 0x10;
const TRIGGER: u32 = 0x20;

const MSIX: u32 = 2;

#[test]
fn an_interrupt_writes_the_eventfd_of_its_vector() {
    let host = Host::new();
    let mut client = host.client();
    let fds: Vec<OwnedFd> = (0..3).map(|_| event()).collect();
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, 4, 3, &fds.iter().collect::<Vec<_>>())
        .unwrap();
    host.parts.msix.raise(4);
    host.parts.msix.raise(6);
    host.parts.msix.raise(6);
    host.parts.msix.raise(7);
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn eventfds_come_in_chunks() {
    let host = Host::new();
    let mut client = host.client();
    let fds: Vec<OwnedFd> = (0..32).map(|_| event()).collect();
    for (start, chunk) in [(0, &fds[..16]), (16, &fds[16..])] {
        client
            .set_irqs(MSIX, EVENTFD | TRIGGER, start, 16, &chunk.iter().collect::<Vec<_>>())
            .unwrap();
    }
    for vector in 0..32 {
        for _ in 0..=vector {
            host.parts.msix.raise(vector);
        }
    }
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), (1..=32).collect::<Vec<_>>());
}

/// QEMU's sequence when a driver enables one vector more, if the vectors cannot be resized.
#[test]
fn interrupts_raised_while_eventfds_are_exchanged_are_sent_when_they_are_back() {
    let host = Host::new();
    let mut client = host.driver();
    let (first, second) = (event(), event());
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 0, 1, &[]).unwrap();
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 0, 1, &[&first]).unwrap();
    host.parts.msix.raise(0);
    assert_eq!(events(&first), 1);
    client.set_irqs(MSIX, NONE | TRIGGER, 0, 0, &[]).unwrap();
    host.parts.msix.raise(0);
    host.parts.msix.raise(0);
    host.parts.msix.raise(1);
    assert_eq!((events(&first), events(&second)), (0, 0));
    assert_eq!(client.read(BAR0, 0x3000, 8), Ok(vec![3, 0, 0, 0, 0, 0, 0, 0]));
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, 0, 2, &[&first, &second])
        .unwrap();
    assert_eq!((events(&first), events(&second)), (1, 1));
    assert_eq!(client.read(BAR0, 0x3000, 8), Ok(vec![0; 8]));
}

#[test]
fn one_vector_is_taken_away_and_given_back_alone() {
    let host = Host::new();
    let mut client = host.client();
    let fds: Vec<OwnedFd> = (0..3).map(|_| event()).collect();
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, 0, 3, &fds.iter().collect::<Vec<_>>())
        .unwrap();
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 2, 1, &[]).unwrap();
    for vector in 0..3 {
        host.parts.msix.raise(vector);
    }
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), [1, 1, 0]);
    let other = event();
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 2, 1, &[&other]).unwrap();
    assert_eq!((events(&other), events(&fds[2])), (1, 0));
}

#[test]
fn a_client_masks_and_unmasks_vectors() {
    let host = Host::new();
    let mut client = host.client();
    let fds: Vec<OwnedFd> = (0..3).map(|_| event()).collect();
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, 0, 3, &fds.iter().collect::<Vec<_>>())
        .unwrap();
    client.set_irqs(MSIX, NONE | MASK, 0, 3, &[]).unwrap();
    for vector in 0..3 {
        host.parts.msix.raise(vector);
    }
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), [0, 0, 0]);
    let request = [words(&[23, BOOL | UNMASK, MSIX, 0, 3]), vec![1, 0, 1]].concat();
    client.call(SET_IRQS, &request).unwrap();
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), [1, 0, 1]);
    client.set_irqs(MSIX, NONE | UNMASK, 1, 1, &[]).unwrap();
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn a_client_triggers_interrupts_itself() {
    let host = Host::new();
    let mut client = host.client();
    let fds: Vec<OwnedFd> = (0..3).map(|_| event()).collect();
    client
        .set_irqs(MSIX, EVENTFD | TRIGGER, 0, 3, &fds.iter().collect::<Vec<_>>())
        .unwrap();
    client.set_irqs(MSIX, NONE | TRIGGER, 1, 2, &[]).unwrap();
    let request = [words(&[23, BOOL | TRIGGER, MSIX, 0, 3]), vec![0, 0, 9]].concat();
    client.call(SET_IRQS, &request).unwrap();
    assert_eq!(fds.iter().map(events).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn every_kind_of_interrupt_is_accepted() {
    let host = Host::new();
    let mut client = host.client();
    for index in [0, 1, 3, 4] {
        client.set_irqs(index, EVENTFD | TRIGGER, 0, 1, &[&event()]).unwrap();
        client.set_irqs(index, EVENTFD | UNMASK, 0, 1, &[&event()]).unwrap();
        client.set_irqs(index, NONE | TRIGGER, 0, 0, &[]).unwrap();
    }
    assert_eq!(client.set_irqs(5, NONE | TRIGGER, 0, 0, &[]), Err(EINVAL));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let host = Host::new();
    let mut client = host.client();
    let fd = event();
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 0, 1, &[&fd]).unwrap();
    for (flags, start, count, fds) in [
        (EVENTFD | TRIGGER, 32, 1, vec![]),
        (EVENTFD | TRIGGER, 31, 2, vec![]),
        (EVENTFD | TRIGGER, u32::MAX, u32::MAX, vec![]),
        (EVENTFD | TRIGGER, 0, u32::MAX, vec![]),
        (EVENTFD | TRIGGER, 0, 2, vec![&fd]),
        (EVENTFD | TRIGGER, 0, 1, vec![&fd, &fd]),
        (EVENTFD | TRIGGER, 0, 0, vec![&fd]),
        (EVENTFD | MASK, 0, 1, vec![&fd]),
        (EVENTFD | NONE | TRIGGER, 0, 1, vec![]),
        (NONE | TRIGGER | MASK, 0, 1, vec![]),
        (BOOL | TRIGGER, 0, 1, vec![]),
        (NONE, 0, 1, vec![]),
        (TRIGGER, 0, 1, vec![]),
        (0, 0, 1, vec![]),
    ] {
        assert_eq!(
            client.set_irqs(MSIX, flags, start, count, &fds),
            Err(EINVAL),
            "{flags:#x} {start} {count}"
        );
    }
    host.parts.msix.raise(0);
    assert_eq!(events(&fd), 1);
}

#[test]
fn an_eventfd_that_is_full_holds_nobody_up() {
    let host = Host::new();
    let mut client = host.client();
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 0, 1, &[&fd]).unwrap();
    host.parts.msix.raise(0);
    assert_eq!(events(&fd), u64::MAX);
}

#[test]
fn a_reset_keeps_the_eventfds_and_forgets_what_is_pending() {
    let host = Host::new();
    let mut client = host.client();
    let (first, second) = (event(), event());
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 0, 1, &[&first]).unwrap();
    host.parts.msix.raise(1);
    client.call(RESET, &[]).unwrap();
    client.set_irqs(MSIX, EVENTFD | TRIGGER, 1, 1, &[&second]).unwrap();
    assert_eq!(events(&second), 0);
    host.parts.msix.raise(0);
    assert_eq!(events(&first), 1);
}
