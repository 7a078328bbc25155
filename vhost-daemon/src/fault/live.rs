//! The rules in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use log::info;
use parking_lot::RwLock;
use serde_json::Value;

use super::plan::{Plan, PlanError};
use super::rule::{ActiveRule, RuleReport};
use super::{Kind, Later};
use crate::args::CommonArgs;

/// The rules in force at a daemon.
#[derive(Debug)]
pub struct Faults<F> {
    guests: Vec<String>,
    rules: RwLock<Arc<[ActiveRule<F>]>>,
    /// Doors with a rule, a bit each.
    doors: AtomicU32,
    later: Later,
}

impl<F: Kind> Faults<F> {
    /// Creates a set without rules for a daemon with these guests.
    pub fn new(guests: Vec<String>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            guests,
            rules: RwLock::new(Arc::new([])),
            doors: AtomicU32::new(0),
            later: Later::start()?,
        }))
    }

    /// Creates the set of a daemon that can have faults, with the rules of its plan; `None` for any other daemon.
    pub fn of_daemon(args: &CommonArgs, guests: Vec<String>) -> anyhow::Result<Option<Arc<Self>>> {
        if args.faults.is_none() && args.control_socket.is_none() && args.trace_dump.is_none() {
            return Ok(None);
        }
        let set = Self::new(guests).context("cannot start the thread of faults")?;
        if let Some(path) = &args.faults {
            set.apply(Plan::read(path)?)?;
        }
        Ok(Some(set))
    }

    /// Replaces all rules by those of a plan.
    pub fn apply(&self, plan: Plan<F>) -> Result<(), PlanError> {
        plan.check(&self.guests)?;
        let mut doors = 0;
        let mut rules = Vec::with_capacity(plan.rules.len());
        for (rule, position) in plan.rules.into_iter().zip(0..) {
            doors |= 1 << rule.fault.door();
            info!("fault {position} in force: {:?}", rule.fault);
            rules.push(ActiveRule::new(rule, plan.seed, position));
        }
        *self.rules.write() = rules.into();
        self.doors.store(doors, Ordering::Release);
        Ok(())
    }

    /// Executes the command of the control socket: puts a plan in force, if one is given, calls `then`, and returns the
    /// rules in force.
    pub fn control(&self, plan: Option<Value>, then: impl FnOnce()) -> Result<Value, String> {
        if let Some(plan) = plan {
            let applied = Plan::from_json(plan).and_then(|plan| self.apply(plan));
            applied.map_err(|error| error.to_string())?;
            then();
        }
        serde_json::to_value(self.report()).map_err(|error| error.to_string())
    }

    /// Returns the rules in force.
    pub fn report(&self) -> Vec<RuleReport<F>> {
        self.rules.read().iter().map(ActiveRule::report).collect()
    }
}

/// The rules in force, as asked on behalf of a guest.
#[derive(Debug)]
pub struct GuestFaults<F> {
    faults: Arc<Faults<F>>,
    guest: String,
}

impl<F> Clone for GuestFaults<F> {
    fn clone(&self) -> Self {
        Self {
            faults: self.faults.clone(),
            guest: self.guest.clone(),
        }
    }
}

impl<F: Kind> GuestFaults<F> {
    /// Creates the view of a guest.
    pub fn new(faults: &Arc<Faults<F>>, guest: &str) -> Self {
        Self {
            faults: faults.clone(),
            guest: guest.to_owned(),
        }
    }

    /// Whether there is a rule for a door.
    #[inline]
    pub fn armed(&self, door: u32) -> bool {
        self.faults.doors.load(Ordering::Relaxed) & 1 << door != 0
    }

    /// Asks the rules for which `select` returns something, in order, and returns that of the first that strikes, with
    /// a random number.
    pub fn strike<T>(&self, object: u32, mut select: impl FnMut(&F) -> Option<T>) -> Option<(T, u64)> {
        let rules = self.faults.rules.read().clone();
        rules
            .iter()
            .filter(|rule| rule.concerns(&self.guest, object))
            .find_map(|rule| {
                let selected = select(&rule.rule.fault)?;
                rule.strikes(object).then(|| (selected, rule.random()))
            })
    }

    /// Asks all rules for which `select` returns something, and calls `act` for each that strikes, with its position
    /// and a random number.
    pub fn strike_each<T>(
        &self,
        object: u32,
        mut select: impl FnMut(&F) -> Option<T>,
        mut act: impl FnMut(usize, T, u64),
    ) {
        let rules = self.faults.rules.read().clone();
        for (position, rule) in rules.iter().enumerate() {
            if rule.concerns(&self.guest, object)
                && let Some(selected) = select(&rule.rule.fault)
                && rule.strikes(object)
            {
                act(position, selected, rule.random());
            }
        }
    }

    /// The clock for what is late.
    pub fn later(&self) -> &Later {
        &self.faults.later
    }

    /// Name of the guest.
    pub fn guest(&self) -> &str {
        &self.guest
    }
}

#[cfg(test)]
mod tests;
