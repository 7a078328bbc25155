//! The thread of a port: frames between its medium and the switch.

use std::sync::atomic::Ordering;

use log::debug;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::Shared;
use super::arrival::{Arrived, admit};
use super::medium::{Incoming, Medium};
use crate::net::{Burst, Frame, SwitchPort};

/// Frames that are taken from the peer before some are sent to it, and the other way round.
const TURN: usize = 64;

/// Moves frames until the port is dropped.
pub(super) fn run(shared: &Shared, port: &SwitchPort, mut medium: Box<dyn Medium>) {
    let mut held = None;
    while !shared.stop.load(Ordering::Acquire) {
        let can_send = send(shared, &mut *medium, &mut held);
        let idle = receive(shared, port, &mut *medium, &mut held);
        if idle {
            wait(shared, &*medium, can_send);
        }
    }
}

/// Sends frames. Returns false if the peer takes no more for now.
fn send(shared: &Shared, medium: &mut dyn Medium, held: &mut Option<Vec<u8>>) -> bool {
    for _ in 0..TURN {
        let Some(frame) = held.take().or_else(|| shared.departure.pop()) else {
            break;
        };
        match medium.send(&frame) {
            Ok(true) => {}
            Ok(false) => {
                *held = Some(frame);
                return false;
            }
            Err(error) => {
                match Errno::from_io_error(&error) {
                    Some(Errno::MSGSIZE) => shared.drops.too_long.increment(),
                    _ => shared.drops.refused.increment(),
                };
                debug!("{}: cannot send a frame: {error}", shared.name);
            }
        }
    }
    medium.flush()
}

/// Delivers frames of the peer. Returns whether there are no more for now.
fn receive(shared: &Shared, port: &SwitchPort, medium: &mut dyn Medium, held: &mut Option<Vec<u8>>) -> bool {
    let (mut arrived, mut frame, mut idle) = (Vec::new(), Vec::new(), false);
    for _ in 0..TURN {
        match medium.receive(&mut frame) {
            Incoming::Frame => match admit(&frame) {
                Some(frame) => arrived.push(frame),
                None => drop(shared.drops.bad_icrc.increment()),
            },
            Incoming::Nothing => {
                idle = true;
                break;
            }
            Incoming::Connected => {
                shared.connections.increment();
                set_connected(shared, port, true);
            }
            Incoming::Dropped(reason) => drop(shared.drops.of(reason).increment()),
            gone @ (Incoming::Disconnected | Incoming::Confused) => {
                if gone == Incoming::Confused {
                    shared.drops.malformed.increment();
                }
                deliver(port, &std::mem::take(&mut arrived));
                set_connected(shared, port, false);
                let dropped = shared.departure.clear() + usize::from(held.take().is_some());
                shared.drops.disconnected.add(dropped as u64);
            }
        }
    }
    deliver(port, &arrived);
    idle
}

fn set_connected(shared: &Shared, port: &SwitchPort, connected: bool) {
    shared.connected.store(connected, Ordering::Relaxed);
    port.set_enabled(connected);
}

/// Delivers frames, consecutive ones of a kind with the same addresses together.
fn deliver(port: &SwitchPort, arrived: &[Arrived]) {
    let together = |a: &Arrived, b: &Arrived| {
        let is_packet = |arrived: &Arrived| matches!(arrived, Arrived::Packet(_));
        is_packet(a) == is_packet(b) && a.frame().addresses() == b.frame().addresses()
    };
    for burst in arrived.chunk_by(together) {
        let frames: Vec<Frame<'_>> = burst.iter().map(Arrived::frame).collect();
        port.send_burst(&Burst::new(&frames));
    }
}

/// Waits until the peer has sent something or left, or there is something to send that it takes.
fn wait(shared: &Shared, medium: &dyn Medium, can_send: bool) {
    // Frames that the peer does not take need no more of them to wake the thread.
    if can_send && !shared.departure.fall_asleep() {
        return;
    }
    let retry = if can_send { None } else { medium.retry() };
    let events = match can_send || retry.is_some() {
        true => PollFlags::IN,
        false => PollFlags::IN | PollFlags::OUT,
    };
    let of_medium = medium.descriptor().map(|descriptor| (descriptor, events));
    let of_state = medium.state_descriptor().map(|descriptor| (descriptor, PollFlags::IN));
    let mut descriptors: SmallVec<[PollFd<'_>; 3]> = [(shared.departure.waker(), PollFlags::IN)]
        .into_iter()
        .chain(of_medium)
        .chain(of_state)
        .map(|(descriptor, events)| PollFd::from_borrowed_fd(descriptor, events))
        .collect();
    let timeout = retry.and_then(|time| Timespec::try_from(time).ok());
    let _ = poll(&mut descriptors, timeout.as_ref());
    shared.departure.awake();
}
