//! The verdict of `--fail-on`: findings that make a daemon exit with an error.

use std::fmt::Write;

use thiserror::Error;

use crate::finding::{KindInfo, Severity, Source};

/// Stands for every kind of guest error.
const ANY: &str = "any";
/// Stands for every kind.
const ALL: &str = "all";
/// May precede a name.
const PREFIX: &str = "finding=";

/// A failure of `--fail-on`.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum FailOnError {
    /// A kind that the device does not have.
    #[error("--fail-on {kind}: there is no such finding; the kinds are any, all, {}", .known.join(", "))]
    Unknown {
        /// The kind as given.
        kind: String,
        /// The kinds of the device.
        known: Vec<&'static str>,
    },
    /// There are findings of the given kinds.
    #[error("findings: {0}")]
    Found(String),
}

/// The kinds of findings that `--fail-on` names.
#[derive(Debug)]
pub struct FailOn {
    kinds: Vec<&'static str>,
    found: String,
}

impl FailOn {
    /// Looks up the kinds, each of which may follow `finding=`, among those of the device.
    pub fn new(names: &[String], known: &[&'static [KindInfo]]) -> Result<Self, FailOnError> {
        let known = || known.iter().copied().flatten();
        let mut kinds = Vec::new();
        for given in names {
            let name = given.strip_prefix(PREFIX).unwrap_or(given);
            let before = kinds.len();
            let named = known().filter(|kind| match name {
                ALL => true,
                ANY => kind.severity == Severity::Error,
                name => kind.name == name,
            });
            kinds.extend(named.map(|kind| kind.name));
            if kinds.len() == before {
                return Err(FailOnError::Unknown {
                    kind: given.clone(),
                    known: known().map(|kind| kind.name).collect(),
                });
            }
        }
        Ok(Self {
            kinds,
            found: String::new(),
        })
    }

    /// Adds findings of a guest.
    pub fn add(&mut self, guest: &str, findings: &dyn Source) {
        for (kind, count) in findings.counts() {
            if count > 0 && self.kinds.contains(&kind.name) {
                let separator = if self.found.is_empty() { "" } else { ", " };
                // Writing to a string cannot fail.
                let _ = write!(self.found, "{separator}{guest}: {} ({count})", kind.name);
            }
        }
    }

    /// Fails if any of them was of a kind that was named.
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
    use crate::finding::{Findings, Kind, Object};

    crate::findings! {
        /// Three kinds.
        enum Three {
            /// The first.
            First = Error "first" { rule: "", source: "", answer: "", },
            /// The second.
            Second = Error "second" { rule: "", source: "", answer: "", },
            /// The third.
            Third = Suspicion "third" { rule: "", source: "", answer: "", },
        }
    }

    fn verdict(names: &[&str]) -> Result<(), FailOnError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut fail_on = FailOn::new(&names, &[Three::INFOS])?;
        let guest = |counts: [u64; 3]| {
            let findings = Findings::<Three>::new("");
            for (&kind, count) in Three::ALL.iter().zip(counts) {
                (0..count).for_each(|_| findings.report(kind, Object::new("queue", 1), &[], format_args!("")));
            }
            findings
        };
        fail_on.add("a", &guest([0, 3, 0]));
        fail_on.add("b", &guest([1, 1, 2]));
        fail_on.verdict()
    }

    #[test]
    fn only_the_kinds_that_are_named_fail() {
        let found = |text: &str| Err(FailOnError::Found(text.to_owned()));
        assert_eq!(verdict(&[]), Ok(()));
        for name in ["first", "finding=first"] {
            assert_eq!(verdict(&[name]), found("b: first (1)"));
        }
        assert_eq!(verdict(&["second", "second"]), found("a: second (3), b: second (1)"));
        assert_eq!(verdict(&["any"]), found("a: second (3), b: first (1), b: second (1)"));
        assert_eq!(
            verdict(&["finding=all"]),
            found("a: second (3), b: first (1), b: second (1), b: third (2)")
        );
        let text = verdict(&["finding=fourth"]).unwrap_err().to_string();
        assert_eq!(
            text,
            "--fail-on finding=fourth: there is no such finding; the kinds are any, all, first, second, third"
        );
    }
}
