//! A rule in force.

use parking_lot::Mutex;
use serde::Serialize;

use super::Kind;
use super::plan::Rule;

/// A rule in force, with its count of occasions and its random numbers.
#[derive(Debug)]
pub(super) struct ActiveRule<F> {
    pub(super) rule: Rule<F>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    occasions: u64,
    strikes: u64,
    last_object: Option<u32>,
}

/// A rule in force and what became of it.
#[derive(Debug, Clone, Serialize)]
#[serde(bound = "F: Kind")]
pub struct RuleReport<F> {
    /// Occasions that the rule has seen.
    pub occasions: u64,
    /// Occasions at which it struck.
    pub strikes: u64,
    /// Object of the last strike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_object: Option<u32>,
    /// Name of that object, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_object_name: Option<String>,
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule<F>,
}

impl<F: Kind> ActiveRule<F> {
    /// Puts a rule in force; `position` is that in the plan.
    pub(super) fn new(rule: Rule<F>, seed: u64, position: u64) -> Self {
        // Seeds that differ by one give unrelated sequences (fastrand hashes them).
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(position));
        Self {
            rule,
            state: Mutex::new(State {
                random,
                occasions: 0,
                strikes: 0,
                last_object: None,
            }),
        }
    }

    /// Whether the rule is about this guest and object.
    pub(super) fn concerns(&self, guest: &str, object: u32) -> bool {
        let when = &self.rule.when;
        when.guest.as_ref().is_none_or(|name| name == guest) && when.object.is_none_or(|number| number == object)
    }

    /// Counts an occasion, and decides whether the rule strikes.
    pub(super) fn strikes(&self, object: u32) -> bool {
        let when = &self.rule.when;
        let mut state = self.state.lock();
        let occasion = state.occasions;
        state.occasions += 1;
        if occasion < when.skip || when.count.is_some_and(|count| state.strikes >= count) {
            return false;
        }
        let strikes = when.probability >= 1.0 || state.random.f64() < when.probability;
        if strikes {
            state.strikes += 1;
            state.last_object = Some(object);
        }
        strikes
    }

    /// Draws a random number for the details of a strike.
    pub(super) fn random(&self) -> u64 {
        self.state.lock().random.u64(..)
    }

    pub(super) fn report(&self) -> RuleReport<F> {
        let state = self.state.lock();
        RuleReport {
            occasions: state.occasions,
            strikes: state.strikes,
            last_object: state.last_object,
            last_object_name: state.last_object.and_then(|object| self.rule.fault.object_name(object)),
            rule: self.rule.clone(),
        }
    }
}
