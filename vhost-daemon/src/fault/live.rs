//! The rules in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use log::info;
use parking_lot::RwLock;
use serde_json::Value;

use super::plan::{Plan, PlanError};
use super::rule::{ActiveRule, RuleReport};
use super::tape::{FaultTape, Strike};
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

/// The rules in force, as asked on behalf of a guest, or the strikes of a replay.
#[derive(Debug)]
pub struct GuestFaults<F> {
    /// None in a replay.
    faults: Option<Arc<Faults<F>>>,
    guest: String,
    tape: Option<Arc<dyn FaultTape>>,
}

impl<F> Clone for GuestFaults<F> {
    fn clone(&self) -> Self {
        Self {
            faults: self.faults.clone(),
            guest: self.guest.clone(),
            tape: self.tape.clone(),
        }
    }
}

impl<F: Kind> GuestFaults<F> {
    /// Creates the view of a guest.
    pub fn new(faults: &Arc<Faults<F>>, guest: &str) -> Self {
        Self {
            faults: Some(faults.clone()),
            guest: guest.to_owned(),
            tape: None,
        }
    }

    /// Records what strikes inside the device.
    #[must_use]
    pub fn with_tape(self, tape: Arc<dyn FaultTape>) -> Self {
        Self {
            tape: Some(tape),
            ..self
        }
    }

    /// Creates the view of a guest that is replayed: no rules are asked.
    pub fn replayed(guest: &str, tape: Arc<dyn FaultTape>) -> Self {
        Self {
            faults: None,
            guest: guest.to_owned(),
            tape: Some(tape),
        }
    }

    /// Whether there is a rule for a door.
    #[inline]
    pub fn armed(&self, door: u32) -> bool {
        match &self.faults {
            Some(faults) => faults.doors.load(Ordering::Relaxed) & 1 << door != 0,
            None => true,
        }
    }

    fn rules(&self) -> Arc<[ActiveRule<F>]> {
        match &self.faults {
            Some(faults) => faults.rules.read().clone(),
            None => Arc::new([]),
        }
    }

    /// Asks the rules for which `select` returns something, in order, and returns that of the first that strikes, with
    /// a random number.
    pub fn strike<T>(&self, object: u32, select: impl FnMut(&F) -> Option<T>) -> Option<(T, u64)> {
        self.first_strike(object, select)
            .map(|(_, selected, random)| (selected, random))
    }

    fn first_strike<T>(&self, object: u32, mut select: impl FnMut(&F) -> Option<T>) -> Option<(F, T, u64)> {
        let rules = self.rules();
        rules
            .iter()
            .filter(|rule| rule.concerns(&self.guest, object))
            .find_map(|rule| {
                let fault = &rule.rule.fault;
                let selected = select(fault)?;
                rule.strikes(object).then(|| (fault.clone(), selected, rule.random()))
            })
    }

    /// Does the same at a door inside the device, whose strikes are on the tape.
    pub fn strike_inside<T>(
        &self,
        door: u32,
        object: u32,
        mut select: impl FnMut(&F) -> Option<T>,
    ) -> Option<(T, u64)> {
        let Some(tape) = &self.tape else {
            return self.strike(object, select);
        };
        if self.faults.is_none() {
            let mut selected = None;
            let strike = tape.replayed(door, object, &mut |fault| {
                selected = serde_json::from_str(fault).ok().and_then(|fault| select(&fault));
                selected.is_some()
            })?;
            return selected.map(|selected| (selected, strike.random));
        }
        let (fault, selected, random) = self.first_strike(object, select)?;
        tape.struck(&Strike {
            door,
            object,
            fault: serde_json::to_string(&fault).unwrap_or_default(),
            random,
        });
        Some((selected, random))
    }

    /// Asks all rules for which `select` returns something, and calls `act` for each that strikes, with its position
    /// and a random number.
    pub fn strike_each<T>(
        &self,
        object: u32,
        mut select: impl FnMut(&F) -> Option<T>,
        mut act: impl FnMut(usize, T, u64),
    ) {
        let rules = self.rules();
        for (position, rule) in rules.iter().enumerate() {
            if rule.concerns(&self.guest, object)
                && let Some(selected) = select(&rule.rule.fault)
                && rule.strikes(object)
            {
                act(position, selected, rule.random());
            }
        }
    }

    /// Does `work` at a time, outside of the device.
    pub fn at(&self, time: Instant, work: impl FnOnce() + Send + 'static) {
        if let Some(faults) = &self.faults {
            faults.later.at(time, work);
        }
    }

    /// Does `work` after a delay, outside of the device.
    pub fn after(&self, delay: Duration, work: impl FnOnce() + Send + 'static) {
        self.at(Instant::now() + delay, work);
    }

    /// Does `work` after a delay, inside of the device.
    pub fn after_inside(&self, delay: Duration, work: impl FnOnce() + Send + 'static) {
        match &self.tape {
            None => self.after(delay, work),
            Some(tape) => {
                if let Some(work) = tape.late(Box::new(work)) {
                    self.after(delay, work);
                }
            }
        }
    }

    /// Calls `act`, an action of a fault, on the calling thread.
    pub fn act(&self, fault: &F, mut act: impl FnMut()) {
        match &self.tape {
            None => act(),
            Some(tape) => tape.act(&serde_json::to_string(fault).unwrap_or_default(), &mut act),
        }
    }

    /// Name of the guest.
    pub fn guest(&self) -> &str {
        &self.guest
    }
}

#[cfg(test)]
mod tests;
