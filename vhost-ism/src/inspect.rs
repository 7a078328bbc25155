//! Serialization of live objects for the stats socket, where their own form would not do for JSON.

use std::collections::HashMap;
use std::fmt::LowerHex;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

/// Serializes a number as hexadecimal text: 64 random bits do not fit the numbers of most JSON readers.
pub fn hex<T: LowerHex, S: Serializer>(number: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:#018x}"))
}

/// Serializes a map as a list of objects that hold their key as `id`, in the order of the keys.
pub fn by_id<'a, K, V, S>(map: impl IntoIterator<Item = (&'a K, &'a V)>, serializer: S) -> Result<S::Ok, S::Error>
where
    K: Ord + Serialize + 'a,
    V: Serialize + 'a,
    S: Serializer,
{
    #[derive(Serialize)]
    struct Entry<'a, K, V> {
        id: &'a K,
        #[serde(flatten)]
        value: &'a V,
    }
    let mut entries: Vec<Entry<'_, K, V>> = map.into_iter().map(|(id, value)| Entry { id, value }).collect();
    entries.sort_unstable_by_key(|entry| entry.id);
    serializer.collect_seq(entries)
}

/// Serializes the values of a map whose keys are secret.
pub fn values<K, V: Serialize, S: Serializer>(map: &HashMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

/// Serializes the value that a mutex protects, or null while it is locked: its holder may be waiting for a VMM.
pub fn unless_locked<T: Serialize, S: Serializer>(mutex: &Mutex<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match mutex.try_lock() {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_none(),
    }
}
