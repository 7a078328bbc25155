//! Budget of the host memory that the objects of a guest take. Commands are small and can ask for much: without a
//! limit, one guest takes the memory of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use thiserror::Error;
use vhost_daemon::Counter;

/// Refusal of memory beyond a budget.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the host memory of the guest's objects is used up")]
pub struct OverBudget;

/// Host memory of a guest's objects.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    refused: Counter,
}

/// Snapshot of a [`Budget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BudgetSnapshot {
    /// Limit in bytes.
    pub limit_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Requests for memory that were refused.
    pub refused: u64,
}

/// Bytes that are charged to a budget until dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            refused: Counter::default(),
        }
    }

    /// Charges `bytes`.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, OverBudget> {
        let mut charge = Charge::none(self);
        charge.resize(bytes)?;
        Ok(charge)
    }

    /// Takes a snapshot.
    pub fn snapshot(&self) -> BudgetSnapshot {
        BudgetSnapshot {
            limit_bytes: self.limit,
            used_bytes: self.used.load(Ordering::Relaxed),
            refused: self.refused.get(),
        }
    }

    fn take(&self, bytes: u64) -> Result<(), OverBudget> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|_| {
            self.refused.increment();
            OverBudget
        })
    }
}

/// Without a limit.
impl Default for Budget {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Charge {
    /// Creates a charge of no bytes.
    pub fn none(budget: &Arc<Budget>) -> Self {
        Self {
            budget: budget.clone(),
            bytes: 0,
        }
    }

    /// Changes the charge to `bytes`; if they exceed the budget, nothing changes.
    pub fn resize(&mut self, bytes: u64) -> Result<(), OverBudget> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.take(more)?,
            None => drop(self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed)),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_given_back_when_it_is_dropped_or_shrinks() {
        let budget = Arc::new(Budget::new(100));
        let state = || (budget.snapshot().used_bytes, budget.snapshot().refused);
        let mut first = budget.charge(60).unwrap();
        assert_eq!(budget.charge(41).unwrap_err(), OverBudget);
        let second = budget.charge(40).unwrap();
        assert_eq!(first.resize(61), Err(OverBudget));
        assert_eq!(state(), (100, 2));
        first.resize(10).unwrap();
        drop(second);
        assert_eq!(state(), (10, 2));
        first.resize(100).unwrap();
        assert_eq!(state(), (100, 2));
        assert_eq!(first.resize(u64::MAX), Err(OverBudget));
        drop(first);
        assert_eq!(state(), (0, 3));
    }
}
