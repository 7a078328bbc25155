//! The books: how many connections a test made with each guest, against what the guest's kernel counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use guest_harness::{Guest, Result, Testbed};
use serde_json::Value;

/// The kernel's counters of how connections came about (`smc-tool stats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// SMC-D version 2.
    pub smcd_v2: u64,
    /// SMC-D version 1, SMC-R, fallbacks to TCP, failed handshakes: all that is wrong here.
    pub others: u64,
}

/// One ledger for all guests of a testbed.
#[derive(Debug)]
pub struct Ledger {
    made: Vec<AtomicU64>,
    opening: Mutex<Vec<Counts>>,
}

impl Ledger {
    pub fn new(guests: usize) -> Self {
        Self {
            made: (0..guests).map(|_| AtomicU64::new(0)).collect(),
            opening: Mutex::new(vec![Counts::default(); guests]),
        }
    }

    /// Begins the books of a guest anew.
    pub fn open(&self, guest: &Guest) -> Result<()> {
        let now = counts(guest)?.0;
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)[guest.index()] = now;
        self.made[guest.index()].store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Enters connections between two guests.
    pub fn enter(&self, guests: [usize; 2], connections: u64) {
        for guest in guests {
            self.made[guest].fetch_add(connections, Ordering::Relaxed);
        }
    }

    /// Takes into the books what programs made that do not tell how many connections they open, and returns how many those were.
    /// Both guests must have the same number, and at least this many.
    pub fn enter_counted(&self, testbed: &Testbed, guests: [usize; 2], at_least: u64) -> Result<u64> {
        let mut new = [0; 2];
        for (new, guest) in new.iter_mut().zip(guests) {
            let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner)[guest];
            let known = opening.smcd_v2 + self.made[guest].load(Ordering::Relaxed);
            *new = counts(testbed.guest(guest))?.0.smcd_v2.saturating_sub(known);
        }
        assert_eq!(new[0], new[1], "SMC-D connections that guests {guests:?} counted");
        assert!(new[0] >= at_least, "{} connections, not {at_least} or more", new[0]);
        self.enter(guests, new[0]);
        Ok(new[0])
    }

    /// Asserts that every connection made is SMC-D version 2 in the books of both guests, and that nothing else happened.
    pub fn settle(&self, testbed: &Testbed) -> Result<()> {
        for guest in testbed.guests() {
            let difference = self.difference(guest)?;
            assert_eq!(difference, None, "the books of guest {}", guest.name());
        }
        Ok(())
    }

    /// What a guest's kernel counted other than the connections made; `None` if nothing.
    pub fn difference(&self, guest: &Guest) -> Result<Option<String>> {
        let index = guest.index();
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner)[index];
        let expected = Counts {
            smcd_v2: opening.smcd_v2 + self.made[index].load(Ordering::Relaxed),
            others: opening.others,
        };
        let (found, stats) = counts(guest)?;
        Ok((found != expected).then(|| format!("{found:?}, not {expected:?}: {stats}")))
    }
}

fn counts(guest: &Guest) -> Result<(Counts, String)> {
    let out = guest.run("/host/smc-tool --json stats")?.check()?;
    let stats: Value = serde_json::from_str(out.text()).expect("the statistics are JSON");
    let count = |name: &str| stats["summary"][name].as_u64().expect(name);
    let others = ["smcd_v1", "smcr", "fallbacks", "handshake_errors"];
    let counts = Counts {
        smcd_v2: count("smcd_v2"),
        others: others.into_iter().map(count).sum(),
    };
    Ok((counts, format!("{} {}", stats["summary"], stats["fallbacks"])))
}
