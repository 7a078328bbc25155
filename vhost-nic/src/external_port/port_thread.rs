//! The thread of a port: frames between its medium and the switch.

use std::sync::atomic::Ordering;

use log::debug;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::Shared;
use super::entrance::Entrance;
use super::medium::{DropReason, Incoming, Medium};
use super::outlet::Outlet;

/// Frames that are taken from the peer before some are sent to it, and the other way round.
const TURN: usize = 64;

/// Moves frames until the port is dropped.
pub(super) fn run(entrance: &Entrance, mut medium: Box<dyn Medium>) {
    let shared = entrance.shared();
    let mut outlet = Outlet::default();
    while !shared.stop.load(Ordering::Acquire) {
        let can_send = send(shared, &mut *medium, &mut outlet);
        let idle = receive(entrance, &mut *medium, &mut outlet);
        if idle {
            wait(shared, &*medium, &outlet, can_send);
        }
    }
}

/// Sends frames. Returns false if the peer takes no more for now.
fn send(shared: &Shared, medium: &mut dyn Medium, outlet: &mut Outlet) -> bool {
    let offloads = medium.offloads();
    for _ in 0..TURN {
        let Some(outgoing) = outlet.take(&shared.departure, offloads) else {
            break;
        };
        match medium.send(&outgoing) {
            Ok(true) => {}
            Ok(false) => {
                outlet.hold(outgoing);
                return false;
            }
            Err(error) => {
                let reason = match Errno::from_io_error(&error) {
                    Some(Errno::MSGSIZE) => &shared.drops.too_long,
                    _ => &shared.drops.refused,
                };
                reason.add(outgoing.frames as u64);
                debug!("{}: cannot send a frame: {error}", shared.name);
            }
        }
    }
    medium.flush()
}

/// Delivers frames of the peer. Returns whether there are no more for now.
fn receive(entrance: &Entrance, medium: &mut dyn Medium, outlet: &mut Outlet) -> bool {
    let (mut arrived, mut frame, mut idle) = (Vec::new(), Vec::new(), false);
    for _ in 0..TURN {
        match medium.receive(&mut frame) {
            Incoming::Frame => entrance.admit(&frame, &mut arrived),
            Incoming::Nothing => {
                idle = true;
                break;
            }
            Incoming::Connected => entrance.connect(),
            Incoming::Dropped(reason) => entrance.count_dropped(reason),
            gone @ (Incoming::Disconnected | Incoming::Confused) => {
                if gone == Incoming::Confused {
                    entrance.count_dropped(DropReason::Malformed);
                }
                entrance.deliver(&mut arrived);
                entrance.disconnect(outlet.clear());
            }
        }
    }
    entrance.deliver(&mut arrived);
    idle
}

/// Waits until the peer has sent something or left, or there is something to send that it takes.
fn wait(shared: &Shared, medium: &dyn Medium, outlet: &Outlet, can_send: bool) {
    // Frames that the peer does not take need no more of them to wake the thread.
    if can_send && !(outlet.is_empty() && shared.departure.fall_asleep()) {
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
