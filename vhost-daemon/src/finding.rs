//! Findings: mistakes of a guest's driver or program. The device answers them as its specification says, and goes on.
//!
//! A device declares the kinds with [`findings!`](crate::findings): each has a rule and the place where that is
//! written. An *error* breaks the rule; a *suspicion* is legal by the letter, and most often a mistake. [`Findings`] of
//! a guest counts them by kind, logs them at a limited rate, keeps the first of each kind and the latest of all, and
//! passes them to every [`Subscription`].

mod findings;
mod record;
mod subscription;

pub use findings::{FIRST_OF_KIND, Findings, LATEST, Observer, Source};
pub use record::{MAX_EVIDENCE, Object, Record};
pub use subscription::{QUEUE, Subscription};

use serde::Serialize;

/// Weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The rule is broken: a guest error.
    Error,
    /// Legal by the letter.
    Suspicion,
}

/// Description of a kind.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct KindInfo {
    /// Name in statistics, in snake_case.
    #[serde(rename = "finding")]
    pub name: &'static str,
    /// Weight.
    pub severity: Severity,
    /// The rule, in one sentence.
    pub rule: &'static str,
    /// Place where the rule is written.
    pub source: &'static str,
    /// Answer of the device.
    #[serde(skip)]
    pub answer: &'static str,
}

/// A kind of finding; [`findings!`](crate::findings) defines such types.
pub trait Kind: Copy + Send + Sync + 'static {
    /// Kinds by index.
    const ALL: &'static [Self];
    /// Descriptions, in the same order.
    const INFOS: &'static [KindInfo];

    /// Returns the position in [`Kind::ALL`].
    fn index(self) -> usize;

    /// Returns the description.
    fn info(self) -> &'static KindInfo {
        &Self::INFOS[self.index()]
    }

    /// Returns the name in statistics, in snake_case.
    fn name(self) -> &'static str {
        self.info().name
    }
}

/// Defines the kinds of findings of a device: name in statistics, severity, rule, source and answer of each.
///
/// ```
/// use vhost_daemon::finding::{Findings, Kind, Object};
///
/// vhost_daemon::findings! {
///     /// A finding.
///     pub enum Finding {
///         /// A request of unknown type.
///         UnknownRequest = Error "unknown_request" {
///             rule: "A request has a type of the table.",
///             source: "device.md, Requests",
///             answer: "the request is refused",
///         },
///     }
/// }
///
/// let findings = Findings::<Finding>::new("a");
/// let queue = Object::new("queue", 3);
/// findings.report(Finding::UnknownRequest, queue, &[7], format_args!("request of unknown type 7"));
/// assert_eq!(findings.count(Finding::UnknownRequest), 1);
/// assert_eq!(Finding::ALL[0].name(), "unknown_request");
/// ```
#[macro_export]
macro_rules! findings {
    (
        $(#[$meta:meta])*
        $vis:vis enum $kind:ident {
            $(
                $(#[$doc:meta])*
                $name:ident = $severity:ident $text:literal {
                    rule: $rule:literal,
                    source: $source:literal,
                    answer: $answer:literal,
                },
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $kind { $($(#[$doc])* $name,)* }

        impl $crate::finding::Kind for $kind {
            const ALL: &'static [Self] = &[$(Self::$name,)*];
            const INFOS: &'static [$crate::finding::KindInfo] = &[$($crate::finding::KindInfo {
                name: $text,
                severity: $crate::finding::Severity::$severity,
                rule: $rule,
                source: $source,
                answer: $answer,
            },)*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
