//! Plans: lists of rules.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de};
use serde_json::{Map, Value};
use thiserror::Error;

use super::Kind;

/// Maximum number of rules of a plan.
const MAX_RULES: usize = 256;

/// Reason why a plan is refused.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read the fault plan {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The text is not a plan in TOML.
    #[error("invalid fault plan: {0}")]
    Toml(#[from] toml::de::Error),
    /// The value is not a plan in JSON.
    #[error("invalid fault plan: {0}")]
    Json(#[from] serde_json::Error),
    /// A probability is not one.
    #[error("fault {0}: a probability is from 0 to 1")]
    Probability(usize),
    /// A rule names a guest that does not exist.
    #[error("fault {rule}: there is no guest {guest:?}")]
    Guest {
        /// Position of the rule, from 0.
        rule: usize,
        /// Name of the guest.
        guest: String,
    },
    /// There are too many rules.
    #[error("a plan has at most {MAX_RULES} faults")]
    TooLong,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "F: Kind")]
pub struct Plan<F> {
    /// Seed of the random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Rules, in the order in which they are asked.
    #[serde(default = "Vec::new", rename = "fault")]
    pub rules: Vec<Rule<F>>,
}

/// A rule: a fault, and the occasions at which it strikes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", bound = "F: Kind")]
pub struct Rule<F> {
    /// Occasions.
    #[serde(flatten)]
    pub when: When,
    /// Fault.
    #[serde(flatten)]
    pub fault: F,
}

/// Occasions at which a rule strikes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct When {
    /// Guest, by its name; `None` for every guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// Number of the object; `None` for every object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<u32>,
    /// Occasions that pass before the first strike.
    pub skip: u64,
    /// Maximum number of strikes; `None` for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Probability of a strike.
    pub probability: f64,
}

impl Default for When {
    fn default() -> Self {
        Self {
            guest: None,
            object: None,
            skip: 0,
            count: None,
            probability: 1.0,
        }
    }
}

/// Keys of [`When`]; the others are those of the fault.
const KEYS: [&str; 5] = ["guest", "object", "skip", "count", "probability"];

/// A key that is neither of [`When`] nor of the fault is an error; serde's `flatten` and its unit variants accept any.
impl<F: Kind> TryFrom<Map<String, Value>> for Rule<F> {
    type Error = serde_json::Error;

    fn try_from(keys: Map<String, Value>) -> Result<Self, Self::Error> {
        let (when, given): (Map<_, _>, Map<_, _>) = keys.into_iter().partition(|(key, _)| KEYS.contains(&key.as_str()));
        let fault: F = serde_json::from_value(Value::Object(given.clone()))?;
        let known = serde_json::to_value(&fault)?;
        if let Some(key) = given.keys().find(|key| known.get(key).is_none()) {
            return Err(de::Error::custom(format_args!("unknown key `{key}`")));
        }
        Ok(Self {
            when: serde_json::from_value(Value::Object(when))?,
            fault,
        })
    }
}

/// Reads a plan of any daemon from a file in TOML, as a value for [`Plan::from_json`]. Rules are not checked.
pub fn read_file(path: &Path) -> Result<Value, PlanError> {
    Ok(toml::from_str(&read(path)?)?)
}

fn read(path: &Path) -> Result<String, PlanError> {
    fs::read_to_string(path).map_err(|source| PlanError::Read {
        path: path.to_owned(),
        source,
    })
}

impl<F: Kind> Plan<F> {
    /// Parses a plan in TOML.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        Ok(toml::from_str(text)?)
    }

    /// Reads a plan from a file in TOML.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        Self::from_toml(&read(path)?)
    }

    /// Converts a plan from JSON.
    pub fn from_json(value: Value) -> Result<Self, PlanError> {
        Ok(serde_json::from_value(value)?)
    }

    /// Checks the rules for a daemon with these guests.
    pub(super) fn check(&self, guests: &[String]) -> Result<(), PlanError> {
        if self.rules.len() > MAX_RULES {
            return Err(PlanError::TooLong);
        }
        for (rule, Rule { when, .. }) in self.rules.iter().enumerate() {
            if !(0.0..=1.0).contains(&when.probability) {
                return Err(PlanError::Probability(rule));
            }
            if let Some(guest) = when.guest.as_ref().filter(|guest| !guests.contains(guest)) {
                let guest = guest.clone();
                return Err(PlanError::Guest { rule, guest });
            }
        }
        Ok(())
    }
}
