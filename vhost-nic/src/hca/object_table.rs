//! Tables of the objects a guest has made, by the number it knows them by.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

/// Objects of one kind. Numbers are given out in order, and again only after all others: a stale number finds nothing for as long as possible.
#[derive(Debug)]
pub struct Table<T> {
    numbers: Range<u32>,
    inner: RwLock<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<u32, Arc<T>>,
    next: u32,
}

impl<T> Table<T> {
    /// An empty table whose objects get these numbers.
    pub fn new(numbers: Range<u32>) -> Self {
        let next = numbers.start;
        Self {
            numbers,
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                next,
            }),
        }
    }

    /// Makes an object, which learns its number; none if the table is full.
    pub fn insert_with(&self, make: impl FnOnce(u32) -> T) -> Option<Arc<T>> {
        let mut inner = self.inner.write();
        let free = |number: &u32| !inner.objects.contains_key(number);
        let number = (inner.next..self.numbers.end)
            .chain(self.numbers.start..inner.next)
            .find(free)?;
        inner.next = number + 1;
        let object = Arc::new(make(number));
        inner.objects.insert(number, object.clone());
        Some(object)
    }

    /// The object of a number.
    pub fn get(&self, number: u32) -> Option<Arc<T>> {
        self.inner.read().objects.get(&number).cloned()
    }

    /// Takes an object out of the table.
    pub fn remove(&self, number: u32) -> Option<Arc<T>> {
        self.inner.write().objects.remove(&number)
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all objects.
    pub fn clear(&self) {
        let mut inner = self.inner.write();
        inner.objects.clear();
        inner.next = self.numbers.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_last() {
        let table = Table::new(4..7);
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
}
