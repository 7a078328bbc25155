//! Frames that a receiver takes on its own thread.
//!
//! They wait apart by the port that they come from, and are taken in turn, one from each: a flood costs other senders
//! one frame of it per frame of theirs, and the room of its own sender.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::hca::memory_budget::{Budget, Charge};
use crate::net::{FrameNumber, PortId};

/// Memory for the frames of one port in bytes: 25 frames of the largest MTU.
const ROOM: usize = 256 << 10;
/// Memory that a frame takes besides its bytes, rounded up.
const FRAME_CHARGE: usize = 128;

/// What has become of a frame on the thread of its sender, which gave it up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The flow tables were passed, and their counters count it.
    pub classified: bool,
    /// Copies that were delivered.
    pub copies: usize,
}

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Arrival {
    pub bytes: Vec<u8>,
    /// Number for the taps.
    pub number: FrameNumber,
    /// `None` if it is not counted as received yet.
    pub progress: Option<Progress>,
}

impl Arrival {
    fn charge(&self) -> usize {
        self.bytes.len() + FRAME_CHARGE
    }
}

/// Frames from one port.
#[derive(Debug)]
struct Lane {
    port: PortId,
    arrivals: VecDeque<Arrival>,
    bytes: usize,
}

#[derive(Debug)]
struct State {
    /// Ports with frames, in the order of their turns.
    lanes: VecDeque<Lane>,
    charge: Charge,
    bytes: usize,
}

/// Outcome of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is the only frame: the receiver's thread does not know yet.
    First,
    /// Others wait as well.
    Behind,
    /// There is no room.
    Full,
}

/// Frames that wait for the thread of their receiver, charged to its guest.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Number of frames, changed with the lock held and read without.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

impl Backlog {
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            state: Mutex::new(State {
                lanes: VecDeque::new(),
                charge: Charge::none(budget),
                bytes: 0,
            }),
        }
    }

    /// Whether no frame waits. A thread sees the frames that it has pushed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Appends a frame from a port.
    pub fn push(&self, port: PortId, arrival: Arrival) -> Pushed {
        let charge = arrival.charge();
        let state = &mut *self.state.lock();
        let at = state.lanes.iter().position(|lane| lane.port == port);
        let taken = at.and_then(|at| state.lanes.get(at)).map_or(0, |lane| lane.bytes);
        let bytes = state.bytes + charge;
        if taken + charge > ROOM || state.charge.resize(bytes as u64).is_err() {
            return Pushed::Full;
        }
        state.bytes = bytes;
        match at.and_then(|at| state.lanes.get_mut(at)) {
            Some(lane) => {
                lane.arrivals.push_back(arrival);
                lane.bytes += charge;
            }
            None => state.lanes.push_back(Lane {
                port,
                arrivals: VecDeque::from([arrival]),
                bytes: charge,
            }),
        }
        match self.waiting.fetch_add(1, Ordering::Release) {
            0 => Pushed::First,
            _ => Pushed::Behind,
        }
    }

    /// Takes the oldest frame of the port whose turn it is.
    pub fn pop(&self) -> Option<(PortId, Arrival)> {
        let state = &mut *self.state.lock();
        let mut lane = state.lanes.pop_front()?;
        let (port, arrival) = (lane.port, lane.arrivals.pop_front()?);
        lane.bytes -= arrival.charge();
        if !lane.arrivals.is_empty() {
            state.lanes.push_back(lane);
        }
        state.bytes -= arrival.charge();
        // Shrinking is always possible.
        let _ = state.charge.resize(state.bytes as u64);
        self.waiting.fetch_sub(1, Ordering::Release);
        Some((port, arrival))
    }

    /// Drops all frames and returns their number.
    pub fn clear(&self) -> usize {
        let state = &mut *self.state.lock();
        state.lanes.clear();
        state.bytes = 0;
        let _ = state.charge.resize(0);
        self.waiting.swap(0, Ordering::Release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(length: usize, mark: u8) -> Arrival {
        Arrival {
            bytes: vec![mark; length],
            number: FrameNumber::default(),
            progress: None,
        }
    }

    fn next(backlog: &Backlog) -> Option<(PortId, u8)> {
        backlog.pop().map(|(port, arrival)| (port, arrival.bytes[0]))
    }

    #[test]
    fn ports_take_turns_and_the_frames_of_each_stay_in_order() {
        let backlog = Backlog::new(&Arc::default());
        assert_eq!(backlog.push(7, arrival(60, 0)), Pushed::First);
        for mark in 1..100 {
            assert_eq!(backlog.push(7, arrival(60, mark)), Pushed::Behind);
        }
        for mark in 0..3 {
            backlog.push(8, arrival(60, mark));
            backlog.push(9, arrival(60, mark));
        }
        for mark in 0..3 {
            assert_eq!(
                [7, 8, 9].map(|_| next(&backlog)),
                [7, 8, 9].map(|port| Some((port, mark)))
            );
        }
        for mark in 3..100 {
            assert!(!backlog.is_empty());
            assert_eq!(next(&backlog), Some((7, mark)));
        }
        assert!(backlog.is_empty() && backlog.pop().is_none());
    }

    #[test]
    fn a_port_without_room_takes_none_from_the_others() {
        let backlog = Backlog::new(&Arc::default());
        let fill = |port| {
            let frames = (0..).take_while(|_| backlog.push(port, arrival(1000, 1)) != Pushed::Full);
            frames.count()
        };
        let count = fill(1);
        assert_eq!(count, ROOM / (1000 + FRAME_CHARGE));
        assert_eq!(fill(2), count);
        assert_eq!(next(&backlog), Some((1, 1)));
        assert_eq!((fill(1), fill(2)), (1, 0));
        assert_eq!(backlog.clear(), 2 * count);
        assert!(backlog.is_empty());
        assert_eq!(backlog.push(2, arrival(ROOM - FRAME_CHARGE, 1)), Pushed::First);
        assert_eq!(backlog.push(3, arrival(ROOM, 1)), Pushed::Full);
    }

    #[test]
    fn frames_are_charged_to_their_receiver() {
        let budget = Arc::new(Budget::new(3000));
        let backlog = Backlog::new(&budget);
        let used = || budget.snapshot().used_bytes as usize;
        backlog.push(1, arrival(1000, 1));
        assert_eq!(used(), 1000 + FRAME_CHARGE);
        backlog.push(2, arrival(1000, 1));
        assert_eq!(backlog.push(3, arrival(1000, 1)), Pushed::Full);
        backlog.pop();
        assert_eq!(used(), 1000 + FRAME_CHARGE);
        backlog.clear();
        assert_eq!(used(), 0);
    }
}
