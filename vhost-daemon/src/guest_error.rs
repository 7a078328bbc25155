//! Errors of guests: answered as the device's specification says, counted by kind, logged at a limited rate, never
//! fatal.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use log::{debug, warn};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use crate::counter::Counter;

/// Minimum time between two warnings about one kind of error of one guest.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A kind of guest error; [`guest_errors!`](crate::guest_errors) defines such types.
pub trait Kind: Copy + 'static {
    /// All kinds, in order of their indices.
    const ALL: &'static [Self];

    /// Returns the position in [`Kind::ALL`].
    fn index(self) -> usize;

    /// Returns the name in statistics, in snake_case.
    fn name(self) -> &'static str;
}

/// Defines the kinds of errors of a device's guests, each with its name in statistics.
///
/// ```
/// use vhost_daemon::guest_error::{GuestErrors, Kind};
///
/// vhost_daemon::guest_errors! {
///     /// A guest error.
///     pub enum GuestError {
///         /// A request of unknown type.
///         UnknownRequest = "unknown_request",
///     }
/// }
///
/// let errors = GuestErrors::<GuestError>::default();
/// errors.report(GuestError::UnknownRequest, format_args!("a: request of unknown type 7"));
/// assert_eq!(errors.count(GuestError::UnknownRequest), 1);
/// assert_eq!(GuestError::ALL[0].name(), "unknown_request");
/// ```
#[macro_export]
macro_rules! guest_errors {
    (
        $(#[$meta:meta])*
        $vis:vis enum $kind:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $kind { $($(#[$doc])* $name,)* }

        impl $crate::guest_error::Kind for $kind {
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

/// Counts the errors of one guest by kind. Serializes as a map from every kind's name to its count.
pub struct GuestErrors<K> {
    kinds: Box<[PerKind]>,
    of: PhantomData<K>,
}

#[derive(Default)]
struct PerKind {
    count: Counter,
    limit: Mutex<RateLimit>,
}

/// The warnings about one kind of error.
#[derive(Default)]
struct RateLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// Decides whether an error at `now` is logged: then returns the number of errors suppressed before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl<K: Kind> Default for GuestErrors<K> {
    fn default() -> Self {
        Self {
            kinds: K::ALL.iter().map(|_| PerKind::default()).collect(),
            of: PhantomData,
        }
    }
}

impl<K: Kind> GuestErrors<K> {
    /// Counts an error. The first of a kind is logged as a warning, later ones at most once per second with the number
    /// of those suppressed in between; each of them at debug level.
    pub fn report(&self, kind: K, what: fmt::Arguments<'_>) {
        let entry = &self.kinds[kind.index()];
        let first = entry.count.increment() == 0;
        let admitted = entry.limit.lock().admit(Instant::now());
        match admitted {
            Some(0) if first => warn!("{what} (counted as {})", kind.name()),
            Some(0) => warn!("{what}"),
            Some(suppressed) => warn!("{what} ({suppressed} more of {} not logged)", kind.name()),
            None => debug!("{what}"),
        }
    }

    /// Returns the number of errors of a kind.
    pub fn count(&self, kind: K) -> u64 {
        self.kinds[kind.index()].count.get()
    }

    /// Returns the name and count of every kind that occurred.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        self.iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Iterates over every kind's name and count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        K::ALL.iter().map(|&kind| (kind.name(), self.count(kind)))
    }
}

impl<K: Kind> fmt::Debug for GuestErrors<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Kind> Serialize for GuestErrors<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::guest_errors! {
        /// An error.
        enum TestError {
            /// One kind.
            One = "one",
            /// Another kind.
            Other = "other",
        }
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let errors = GuestErrors::<TestError>::default();
        for _ in 0..3 {
            errors.report(TestError::Other, format_args!("an error"));
        }
        assert_eq!((errors.count(TestError::One), errors.count(TestError::Other)), (0, 3));
        let json = serde_json::to_value(&errors).unwrap();
        assert_eq!(json, serde_json::json!({ "one": 0, "other": 3 }));
        for (index, kind) in TestError::ALL.iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn warnings_are_limited_to_one_per_interval() {
        let start = Instant::now();
        let mut limit = RateLimit::default();
        assert_eq!(limit.admit(start), Some(0), "the first is logged");
        for _ in 0..500 {
            assert_eq!(limit.admit(start + LOG_INTERVAL / 2), None);
        }
        assert_eq!(limit.admit(start + LOG_INTERVAL), Some(500));
        assert_eq!(limit.admit(start + LOG_INTERVAL), None);
        assert_eq!(limit.admit(start + 2 * LOG_INTERVAL), Some(1));
        assert_eq!(limit.admit(start + 9 * LOG_INTERVAL), Some(0));
    }
}
