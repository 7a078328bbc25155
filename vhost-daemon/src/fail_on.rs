//! The verdict of `--fail-on`: guest errors that make a daemon exit with an error.

use std::fmt::Write;

use thiserror::Error;

use crate::guest_error::Kind;

/// Stands for every kind.
const ANY: &str = "any";

/// A failure of `--fail-on`.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum FailOnError {
    /// A kind that the device does not have.
    #[error("--fail-on {kind}: there is no such guest error; the kinds are any, {}", .known.join(", "))]
    Unknown {
        /// The kind as given.
        kind: String,
        /// The kinds of the device.
        known: Vec<&'static str>,
    },
    /// Errors of the given kinds occurred.
    #[error("guest errors: {0}")]
    Found(String),
}

/// The kinds of guest errors that `--fail-on` names.
#[derive(Debug)]
pub struct FailOn<K> {
    kinds: Vec<K>,
    found: String,
}

impl<K: Kind> FailOn<K> {
    /// Looks the kinds up by their names in the statistics.
    pub fn new(names: &[String]) -> Result<Self, FailOnError> {
        let mut kinds = Vec::new();
        for name in names {
            let before = kinds.len();
            kinds.extend(K::ALL.iter().filter(|kind| name == ANY || kind.name() == name));
            if kinds.len() == before {
                return Err(FailOnError::Unknown {
                    kind: name.clone(),
                    known: K::ALL.iter().map(|kind| kind.name()).collect(),
                });
            }
        }
        Ok(Self {
            kinds,
            found: String::new(),
        })
    }

    /// Adds the errors of one guest; `count` returns the number of errors of a kind.
    pub fn add(&mut self, guest: &str, count: impl Fn(K) -> u64) {
        for kind in K::ALL
            .iter()
            .filter(|kind| self.kinds.iter().any(|of| of.index() == kind.index()))
        {
            let count = count(*kind);
            if count > 0 {
                let separator = if self.found.is_empty() { "" } else { ", " };
                // Writing to a string cannot fail.
                let _ = write!(self.found, "{separator}{guest}: {} ({count})", kind.name());
            }
        }
    }

    /// Fails if any error was added.
    pub fn verdict(self) -> Result<(), FailOnError> {
        match self.found.is_empty() {
            true => Ok(()),
            false => Err(FailOnError::Found(self.found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::guest_errors! {
        /// Two kinds.
        enum Two {
            /// The first.
            First = "first",
            /// The second.
            Second = "second",
        }
    }

    fn verdict(names: &[&str]) -> Result<(), FailOnError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut fail_on = FailOn::<Two>::new(&names)?;
        fail_on.add("a", |kind| match kind {
            Two::First => 0,
            Two::Second => 3,
        });
        fail_on.add("b", |_| 1);
        fail_on.verdict()
    }

    #[test]
    fn only_the_kinds_that_are_named_fail() {
        let found = |text: &str| Err(FailOnError::Found(text.to_owned()));
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&["first"]), found("b: first (1)"));
        assert_eq!(verdict(&["second", "second"]), found("a: second (3), b: second (1)"));
        assert_eq!(verdict(&["any"]), found("a: second (3), b: first (1), b: second (1)"));
        let text = verdict(&["third"]).unwrap_err().to_string();
        assert_eq!(
            text,
            "--fail-on third: there is no such guest error; the kinds are any, first, second"
        );
    }
}
