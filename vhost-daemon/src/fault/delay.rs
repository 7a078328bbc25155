//! Durations in a plan.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration, in a plan a text such as `125ns`, `3ms` or `1s 500ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delay(pub Duration);

impl TryFrom<String> for Delay {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_duration(&text).map(Self)
    }
}

impl From<Delay> for String {
    fn from(delay: Delay) -> Self {
        humantime::format_duration(delay.0).to_string()
    }
}
