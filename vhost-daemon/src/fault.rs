//! Faults on purpose: a plan of rules, in TOML or as JSON over the control socket, and the rules in force.
//!
//! A device declares its kinds of faults as a type that implements [`Kind`], and asks at its doors (the places where
//! its parts meet: a frame, a command, an access to guest memory, an interrupt) whether a rule strikes. What is asked
//! is an *occasion*. A rule strikes from the occasion after `skip` on, at most `count` times, each time with
//! `probability`. The random numbers of a rule come from the plan's seed and the rule's position: a rule that sees the
//! same occasions strikes at the same ones.

mod delay;
mod later;
mod live;
mod plan;
mod rule;
mod tape;

pub use delay::Delay;
pub use later::Later;
pub use live::{Faults, GuestFaults};
pub use plan::{Plan, PlanError, Rule, When, read_file};
pub use rule::RuleReport;
pub use tape::{FaultTape, Strike, Work};

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Kinds of faults of a device with their parameters: in the plan, the keys of a rule that are not those of [`When`].
/// Every parameter is serialized, whatever its value: a plan's keys are checked against that.
pub trait Kind: Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static {
    /// Number of the door at which the fault strikes, below 32.
    fn door(&self) -> u32;

    /// Name of an object that such a fault struck, if its number is the number of something with a name.
    fn object_name(&self, object: u32) -> Option<String> {
        let _ = object;
        None
    }
}
