//! Readers of a guest's payloads, for which a revocation waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

/// Readers of the payloads of a guest, and the number of revocations. Those that begin after a revocation count in
/// another place than those before: a revocation does not wait for a stream of them.
#[derive(Debug, Default)]
pub struct Readers {
    revocations: AtomicU64,
    /// Readers that began at an even and at an odd number of revocations.
    active: [AtomicU64; 2],
    /// Held by a revocation: they are made one after the other.
    turn: Mutex<()>,
}

/// A reader, until dropped.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    active: &'a AtomicU64,
    /// Number of revocations when it began; the next one waits for it.
    pub revocations: u64,
}

impl Readers {
    /// Number of revocations so far.
    #[inline]
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    /// Counts a revocation, and waits for the readers that began before. They take locks of keys and read locks of
    /// tables only, and the caller must hold no key and read no payload.
    pub fn revoke(&self) {
        let _turn = self.turn.lock();
        let before = self.revocations.fetch_add(1, Ordering::SeqCst);
        while self.of(before).load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    }

    #[inline]
    pub(super) fn begin(&self) -> Reading<'_> {
        loop {
            let revocations = self.revocations();
            let active = self.of(revocations);
            // Pairs with `revoke`: either it sees this reader, or this reader sees the revocation.
            active.fetch_add(1, Ordering::SeqCst);
            let reading = Reading { active, revocations };
            if self.revocations.load(Ordering::SeqCst) == revocations {
                return reading;
            }
        }
    }

    fn of(&self, revocations: u64) -> &AtomicU64 {
        &self.active[usize::from(revocations % 2 == 1)]
    }
}

impl Drop for Reading<'_> {
    #[inline]
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_revocation_waits_for_the_readers_before_it_alone() {
        let (readers, revoked) = (Readers::default(), AtomicBool::new(false));
        let before = readers.begin();
        thread::scope(|scope| {
            scope.spawn(|| {
                readers.revoke();
                revoked.store(true, Ordering::SeqCst);
            });
            while readers.revocations() == 0 {
                thread::yield_now();
            }
            let after = readers.begin();
            assert_eq!((before.revocations, after.revocations), (0, 1));
            assert!(!revoked.load(Ordering::SeqCst));
            drop(before);
            while !revoked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            drop(after);
            readers.revoke();
        });
        assert_eq!(readers.revocations(), 2);
    }
}
