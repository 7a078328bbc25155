//! Counters: one way to define, read and serialize them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};

/// A counter that never decreases. Serializes as its current value.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n` and returns the previous value.
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// Adds one and returns the previous value.
    pub fn increment(&self) -> u64 {
        self.add(1)
    }

    /// Returns the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

/// Defines a set of counters: the live structure of [`Counter`]s, and a snapshot of it with plain numbers.
///
/// Both serialize as a map from the counters' names to their values. `NAMES` lists the names for the documentation and
/// its test.
///
/// ```
/// vhost_daemon::counters! {
///     /// Traffic of a port.
///     pub struct Traffic -> TrafficSnapshot {
///         /// Frames received.
///         frames,
///         /// Bytes received.
///         bytes,
///     }
/// }
///
/// let traffic = Traffic::default();
/// traffic.bytes.add(64);
/// assert_eq!(traffic.snapshot(), TrafficSnapshot { frames: 0, bytes: 64 });
/// assert_eq!(Traffic::NAMES, ["frames", "bytes"]);
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $live:ident -> $snapshot:ident { $($(#[$doc:meta])* $name:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $live { $($(#[$doc])* pub $name: $crate::Counter,)* }

        #[doc = concat!("Snapshot of [`", stringify!($live), "`].")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        $vis struct $snapshot { $($(#[$doc])* pub $name: u64,)* }

        impl $live {
            /// Names of the counters, in order of definition.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            /// Reads every counter; the counters are not read at one instant.
            pub fn snapshot(&self) -> $snapshot {
                $snapshot { $($name: self.$name.get(),)* }
            }
        }

        impl $crate::serde::Serialize for $live {
            fn serialize<S: $crate::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::serde::Serialize::serialize(&self.snapshot(), serializer)
            }
        }

        impl $crate::serde::Serialize for $snapshot {
            fn serialize<S: $crate::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map($live::NAMES.iter().zip([$(self.$name,)*]))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::counters! {
        /// Two counters.
        struct Two -> TwoSnapshot {
            /// The first.
            first,
            /// The second.
            second,
        }
    }

    #[test]
    fn counters_serialize_by_name() {
        let two = Two::default();
        assert_eq!(two.first.add(3), 0);
        assert_eq!(two.first.increment(), 3);
        let json = serde_json::to_value(&two).unwrap();
        assert_eq!(json, serde_json::json!({ "first": 4, "second": 0 }));
        assert_eq!(serde_json::to_value(two.snapshot()).unwrap(), json);
        assert_eq!(Two::NAMES, ["first", "second"]);
    }
}
