//! Queue of frames to a peer. Senders never wait for it: what does not fit is dropped.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// Memory that a frame takes besides its bytes, rounded up.
const FRAME_CHARGE: usize = 64;

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread of the port waits, and must be woken for a frame.
    asleep: bool,
}

/// The queue, and the eventfd that wakes the thread of the port.
#[derive(Debug)]
pub(super) struct Departure {
    limit: usize,
    state: Mutex<State>,
    waker: OwnedFd,
}

impl Departure {
    /// Creates a queue for `limit` bytes.
    pub fn new(limit: usize) -> io::Result<Self> {
        Ok(Self {
            limit,
            state: Mutex::default(),
            waker: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Appends a frame, if there is room for it.
    pub fn push(&self, frame: Cow<'_, [u8]>) -> bool {
        let charge = frame.len() + FRAME_CHARGE;
        let mut state = self.state.lock();
        if state.bytes + charge > self.limit {
            return false;
        }
        state.bytes += charge;
        state.frames.push_back(frame.into_owned());
        true
    }

    /// Takes the oldest frame.
    pub fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.len() + FRAME_CHARGE;
        Some(frame)
    }

    /// Drops all frames and returns their number.
    pub fn clear(&self) -> usize {
        let state = &mut *self.state.lock();
        state.bytes = 0;
        std::mem::take(&mut state.frames).len()
    }

    /// Frames in the queue, and the memory that they take.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.frames.len(), state.bytes)
    }

    /// Declares that the thread of the port is about to wait. Returns false if there are frames.
    pub fn fall_asleep(&self) -> bool {
        let mut state = self.state.lock();
        state.asleep = state.frames.is_empty();
        state.asleep
    }

    /// Declares that the thread of the port waits no more.
    pub fn awake(&self) {
        self.state.lock().asleep = false;
        let _ = read(&self.waker, &mut [0; 8]);
    }

    /// Wakes the thread of the port if it waits for frames.
    pub fn wake_if_asleep(&self) {
        let asleep = std::mem::take(&mut self.state.lock().asleep);
        if asleep {
            self.wake();
        }
    }

    /// Wakes the thread of the port, now or when it is about to wait.
    pub fn wake(&self) {
        // It fails only when it would count beyond 2^64 - 2, and the thread is woken then.
        let _ = write(&self.waker, &1_u64.to_ne_bytes());
    }

    /// Descriptor that is readable after [`wake`](Self::wake).
    pub fn waker(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_no_frame_until_one_is_taken() {
        let queue = Departure::new(2 * (FRAME_CHARGE + 100)).unwrap();
        for byte in [1, 2] {
            assert!(queue.push(Cow::Owned(vec![byte; 100])));
        }
        assert!(!queue.push(Cow::Borrowed(&[])));
        assert_eq!(queue.waiting(), (2, 2 * (FRAME_CHARGE + 100)));
        assert_eq!(queue.pop().unwrap(), [1; 100]);
        assert!(!queue.push(Cow::Owned(vec![3; 101])));
        assert!(queue.push(Cow::Owned(vec![3; 100])));
        assert_eq!(queue.clear(), 2);
        assert_eq!((queue.pop(), queue.waiting()), (None, (0, 0)));
    }

    #[test]
    fn only_a_thread_that_waits_is_woken_and_frames_keep_it_awake() {
        let queue = Departure::new(1000).unwrap();
        let signals = || {
            let mut count = [0; 8];
            read(queue.waker(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
        };
        queue.wake_if_asleep();
        assert_eq!(signals(), 0);
        assert!(queue.fall_asleep());
        queue.push(Cow::Borrowed(&[1]));
        queue.wake_if_asleep();
        queue.wake_if_asleep();
        assert_eq!(signals(), 1);
        assert!(!queue.fall_asleep());
        queue.wake_if_asleep();
        assert_eq!(signals(), 0);
    }
}
