//! The turns of the devices of a daemon.

use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};

/// Order of the entries into all devices of a daemon. A thread that has the turn may take it again: what one guest
/// causes at others, and their answers to it, belong to its turn. It is before every other lock of the devices.
#[derive(Debug, Default)]
pub struct Turns {
    holder: Mutex<Option<Holder>>,
    free: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    thread: ThreadId,
    depth: u32,
}

impl Turns {
    /// Waits for a turn, which lasts until the guard is dropped.
    pub fn take(&self) -> Turn<'_> {
        self.enter(1);
        Turn(self)
    }

    /// Whether it is the calling thread's turn.
    pub fn is_own(&self) -> bool {
        let own = thread::current().id();
        self.holder.lock().is_some_and(|holder| holder.thread == own)
    }

    /// Calls `act` with the turn given up, and waits for the next one. `act` may wait for other threads.
    pub fn suspend<T>(&self, act: impl FnOnce() -> T) -> T {
        let own = thread::current().id();
        let depth = {
            let mut holder = self.holder.lock();
            match holder.take_if(|holder| holder.thread == own) {
                Some(holder) => holder.depth,
                None => 0,
            }
        };
        if depth == 0 {
            return act();
        }
        self.free.notify_one();
        // Also if `act` panics: the guards further up give the turn back.
        let _resumed = Resumed { turns: self, depth };
        act()
    }

    fn enter(&self, depth: u32) {
        let own = thread::current().id();
        let mut holder = self.holder.lock();
        if let Some(holder) = &mut *holder
            && holder.thread == own
        {
            holder.depth += depth;
            return;
        }
        while holder.is_some() {
            self.free.wait(&mut holder);
        }
        *holder = Some(Holder { thread: own, depth });
    }
}

/// A turn.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut holder = self.0.holder.lock();
        if let Some(Holder { depth, .. }) = &mut *holder {
            *depth -= 1;
            if *depth > 0 {
                return;
            }
        }
        *holder = None;
        drop(holder);
        self.0.free.notify_one();
    }
}

struct Resumed<'a> {
    turns: &'a Turns,
    depth: u32,
}

impl Drop for Resumed<'_> {
    fn drop(&mut self) {
        self.turns.enter(self.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_taken_again_by_its_thread_only() {
        let turns = Turns::default();
        let outer = turns.take();
        let inner = turns.take();
        drop(inner);
        assert!(turns.is_own());
        thread::scope(|scope| {
            scope.spawn(|| assert!(!turns.is_own())).join().unwrap();
        });
        drop(outer);
        assert!(!turns.is_own());
    }

    #[test]
    fn a_suspended_turn_is_free_for_others_and_comes_back_whole() {
        let turns = Turns::default();
        let (outer, inner) = (turns.take(), turns.take());
        let seen = turns.suspend(|| {
            thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let _turn = turns.take();
                    turns.is_own()
                });
                other.join().unwrap()
            })
        });
        assert!(seen);
        drop(inner);
        assert!(turns.is_own());
        drop(outer);
        assert!(!turns.is_own());
    }
}
