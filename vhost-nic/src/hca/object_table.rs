//! Tables of a guest's objects, by number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::RwLock;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use super::memory_budget::{Budget, Charge};

/// Maximum number of objects of a kind that statistics list.
pub const LISTED: usize = 1 << 10;
/// Bytes that an object takes besides its own: its place in the table, and counts.
const OVERHEAD: usize = 64;

/// Objects of one kind. Numbers are assigned in order and reused last, so that a stale number names no object for
/// as long as possible.
#[derive(Debug)]
pub struct Table<T> {
    numbers: Range<u32>,
    budget: Arc<Budget>,
    inner: RwLock<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<u32, (Arc<T>, Charge)>,
    next: u32,
    /// Source of the first number, unless that is the lowest.
    random: Option<Rng>,
}

impl<T> Inner<T> {
    /// Removes all objects, and starts with a first number of these again.
    fn start(&mut self, numbers: &Range<u32>) {
        self.objects.clear();
        self.next = match &mut self.random {
            Some(random) => random.u32(numbers.clone()),
            None => numbers.start,
        };
    }
}

impl<T> Table<T> {
    /// Creates an empty table whose objects get these numbers, and are charged to `budget`.
    pub fn new(numbers: Range<u32>, budget: &Arc<Budget>) -> Self {
        Self::with_random_start(numbers, budget, None)
    }

    /// Creates an empty table as [`new`](Self::new) does. With random numbers, the first number is one of them, and
    /// another each time that the table is cleared: a peer cannot know a number that it was not told.
    pub fn with_random_start(numbers: Range<u32>, budget: &Arc<Budget>, random: Option<Rng>) -> Self {
        let mut inner = Inner {
            objects: BTreeMap::new(),
            next: numbers.start,
            random,
        };
        inner.start(&numbers);
        Self {
            numbers,
            budget: budget.clone(),
            inner: RwLock::new(inner),
        }
    }

    /// Creates an object with the next free number; `None` if the table is full or the budget used up.
    pub fn insert_with(&self, make: impl FnOnce(u32) -> T) -> Option<Arc<T>> {
        self.insert_sized(size_of::<T>(), make)
    }

    /// Creates an object as [`insert_with`](Self::insert_with) does, one that takes `bytes` with all that it owns and
    /// that is not charged by itself.
    pub fn insert_sized(&self, bytes: usize, make: impl FnOnce(u32) -> T) -> Option<Arc<T>> {
        let charge = self.budget.charge((bytes + OVERHEAD) as u64).ok()?;
        let mut inner = self.inner.write();
        let free = |number: &u32| !inner.objects.contains_key(number);
        let number = (inner.next..self.numbers.end)
            .chain(self.numbers.start..inner.next)
            .find(free)?;
        inner.next = number + 1;
        let object = Arc::new(make(number));
        inner.objects.insert(number, (object.clone(), charge));
        Some(object)
    }

    /// Returns the object of a number.
    pub fn get(&self, number: u32) -> Option<Arc<T>> {
        self.inner.read().objects.get(&number).map(|(object, _)| object.clone())
    }

    /// Removes an object and returns it.
    pub fn remove(&self, number: u32) -> Option<Arc<T>> {
        self.inner.write().objects.remove(&number).map(|(object, _)| object)
    }

    /// Returns all objects. The table is unlocked before the caller works on them.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.inner
            .read()
            .objects
            .values()
            .map(|(object, _)| object.clone())
            .collect()
    }

    /// Returns the objects for which `predicate` is true. Only these are cloned; `predicate` runs with the table
    /// locked.
    pub fn filter(&self, predicate: impl Fn(&T) -> bool) -> SmallVec<[Arc<T>; 4]> {
        let inner = self.inner.read();
        inner
            .objects
            .values()
            .map(|(object, _)| object)
            .filter(|object| predicate(object))
            .cloned()
            .collect()
    }

    /// Returns the lowest `limit` numbers of objects.
    pub fn numbers(&self, limit: usize) -> Vec<u32> {
        self.inner.read().objects.keys().take(limit).copied().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all objects and starts with a first number again.
    pub fn clear(&self) {
        self.inner.write().start(&self.numbers);
    }
}

/// A map from numbers to the first [`LISTED`] objects: a guest can have a million keys. They are serialized after the
/// table is unlocked, because each has locks of its own.
impl<T: Serialize> Serialize for Table<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let listed = |inner: &Inner<T>| -> Vec<_> {
            let objects = inner.objects.iter().take(LISTED);
            objects.map(|(number, (object, _))| (*number, object.clone())).collect()
        };
        let objects = listed(&self.inner.read());
        serializer.collect_map(objects)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;

    #[test]
    fn numbers_come_back_last() {
        let table = Table::new(4..7, &Arc::default());
        let numbers: Vec<u32> = std::iter::from_fn(|| table.insert_with(|number| number))
            .map(|number| *number)
            .collect();
        assert_eq!(numbers, [4, 5, 6]);
        table.remove(4).unwrap();
        table.remove(6).unwrap();
        assert_eq!(*table.insert_with(|number| number).unwrap(), 4);
        assert!(table.get(6).is_none());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn random_numbers_start_elsewhere_each_time_and_are_those_of_their_seed() {
        let starts = |seed| {
            let table = Table::with_random_start(4..1 << 20, &Arc::default(), Some(Rng::with_seed(seed)));
            let starts = [(); 3].map(|()| {
                let first = *table.insert_with(|number| number).unwrap();
                assert_eq!(*table.insert_with(|number| number).unwrap(), first + 1);
                table.clear();
                first
            });
            assert!(starts[0] != starts[1] && starts[1] != starts[2] && starts[0] != starts[2]);
            starts
        };
        assert_eq!(starts(1), starts(1));
        assert_ne!(starts(1), starts(2));
    }

    #[test]
    fn numbers_go_on_with_the_lowest_behind_the_highest() {
        for seed in 0..20 {
            let table = Table::with_random_start(4..7, &Arc::default(), Some(Rng::with_seed(seed)));
            let numbers = std::iter::from_fn(|| table.insert_with(|number| number));
            let mut numbers: Vec<u32> = numbers.map(|number| *number).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, [4, 5, 6]);
        }
    }

    #[test]
    fn an_object_is_charged_until_it_is_removed() {
        let budget = Arc::new(Budget::new(3 * (4 + OVERHEAD as u64)));
        let table = Table::new(0..9, &budget);
        let add = || table.insert_with(|number| number).is_some();
        assert_eq!([add(), add(), add(), add()], [true, true, true, false]);
        table.remove(0).unwrap();
        assert_eq!([add(), add()], [true, false]);
        assert_eq!((budget.snapshot().refused, table.len()), (2, 3));
        table.clear();
        assert_eq!(budget.snapshot().used_bytes, 0);
    }

    #[test]
    fn statistics_list_the_first_objects_and_lock_no_table_meanwhile() {
        struct Removed(Weak<Table<Removed>>, u32);
        impl Serialize for Removed {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // Waits for ever if the table is locked.
                self.0.upgrade().unwrap().remove(self.1);
                serializer.serialize_bool(true)
            }
        }
        let table = Arc::new(Table::new(7..2000, &Arc::default()));
        let make = |number| Removed(Arc::downgrade(&table), number);
        while table.insert_with(make).is_some() {}
        let listed = serde_json::to_value(&*table).unwrap();
        assert_eq!((listed["7"].as_bool(), listed["1999"].as_bool()), (Some(true), None));
        assert_eq!(listed.as_object().unwrap().len(), LISTED);
        assert_eq!(table.len(), 1993 - LISTED);
    }

    #[test]
    fn a_filter_clones_only_what_it_wants() {
        let table = Table::new(0..4, &Arc::default());
        while table.insert_with(|number| number).is_some() {}
        let odd = table.filter(|number| number % 2 == 1);
        assert_eq!(odd.iter().map(|number| **number).collect::<Vec<_>>(), [1, 3]);
        let clones = |number| Arc::strong_count(&table.get(number).unwrap()) - 1;
        assert_eq!([0, 1, 2, 3].map(clones), [1, 2, 1, 2]);
    }
}
