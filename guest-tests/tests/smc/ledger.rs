//! Ledger of the connections a test makes with each guest, compared with the counters of the guest's kernel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use guest_harness::{Guest, Result, Testbed};
use serde_json::Value;

/// Connections counted by the kernel (`smc-tool stats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// SMC-D version 2.
    pub smcd_v2: u64,
    /// SMC-D version 1, SMC-R, fallbacks to TCP, failed handshakes: unexpected here.
    pub others: u64,
}

/// The ledger of all guests of a testbed.
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

    /// Restarts the ledger of a guest.
    pub fn open(&self, guest: &Guest) -> Result<()> {
        let now = counts(guest)?.0;
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)[guest.index()] = now;
        self.made[guest.index()].store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Records connections between two guests.
    pub fn enter(&self, guests: [usize; 2], connections: u64) {
        for guest in guests {
            self.made[guest].fetch_add(connections, Ordering::Relaxed);
        }
    }

    /// Records the connections of programs that do not report their number, as counted by the kernels; returns the
    /// number. Asserts that both guests agree and that there are at least `at_least`.
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

    /// Asserts that all kernels counted exactly the recorded connections, all SMC-D version 2.
    pub fn settle(&self, testbed: &Testbed) -> Result<()> {
        for guest in testbed.guests() {
            let difference = self.difference(guest)?;
            assert_eq!(difference, None, "the ledger of guest {}", guest.name());
        }
        Ok(())
    }

    /// Returns the difference between a guest's kernel and the ledger, if any.
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
