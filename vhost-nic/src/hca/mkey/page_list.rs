//! Page lists of memory keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hca::memory_budget::{Budget, Charge, OverBudget};

/// Entries of a chunk.
const CHUNK: usize = 512;
/// Bytes of a chunk, with its place in the map.
const CHUNK_BYTES: usize = CHUNK * size_of::<u64>() + 32;

/// A list of pages with permissions, as MTT entries in host byte order. Entries that were never written are 0.
#[derive(Debug)]
pub(super) struct PageList {
    /// Entries from the first on, without a gap.
    dense: Vec<u64>,
    /// Entries behind a gap, in chunks by their index: an update far into a list takes no memory for what is before it.
    sparse: BTreeMap<usize, Box<[u64; CHUNK]>>,
    /// Number of entries up to the last one written.
    length: usize,
    charge: Charge,
}

impl PageList {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            dense: Vec::new(),
            sparse: BTreeMap::new(),
            length: 0,
            charge: Charge::none(budget),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the entries of a range, if none of them is behind a gap.
    #[inline]
    pub(super) fn slice(&self, first: usize, last: usize) -> Option<&[u64]> {
        self.dense.get(first..=last)
    }

    /// Returns an entry, or 0.
    pub(super) fn entry(&self, index: usize) -> u64 {
        match self.dense.get(index) {
            Some(entry) => *entry,
            None => self
                .sparse
                .get(&(index / CHUNK))
                .map_or(0, |chunk| chunk[index % CHUNK]),
        }
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) {
        self.dense.clear();
        self.sparse.clear();
        self.length = 0;
        // Shrinking is always possible.
        let _ = self.charge.resize(self.bytes());
    }

    /// Sets bits in all entries.
    pub(super) fn set_bits(&mut self, bits: u64) {
        let sparse = self.sparse.values_mut().flat_map(|chunk| chunk.iter_mut());
        self.dense.iter_mut().chain(sparse).for_each(|entry| *entry |= bits);
    }

    /// Overwrites entries from `at` on, and lengthens the list as needed, to `limit` entries at most.
    pub(super) fn write(
        &mut self,
        at: usize,
        entries: impl ExactSizeIterator<Item = u64>,
        limit: usize,
    ) -> Result<(), OverBudget> {
        let end = at + entries.len();
        if at <= self.dense.len() {
            self.reserve(end, limit)?;
            if self.dense.len() < end {
                self.dense.resize(end, 0);
            }
            let places = self.dense[at..end].iter_mut();
            places.zip(entries).for_each(|(place, entry)| *place = entry);
        } else {
            let chunks = at / CHUNK..end.div_ceil(CHUNK);
            let missing = chunks.filter(|chunk| !self.sparse.contains_key(chunk)).count();
            self.charge.resize(self.bytes() + (missing * CHUNK_BYTES) as u64)?;
            for (index, entry) in (at..).zip(entries) {
                let chunk = self.sparse.entry(index / CHUNK);
                chunk.or_insert_with(|| Box::new([0; CHUNK]))[index % CHUNK] = entry;
            }
        }
        self.length = self.length.max(end);
        Ok(())
    }

    /// Reserves room for `end` entries without a gap, of `limit` in the end.
    fn reserve(&mut self, end: usize, limit: usize) -> Result<(), OverBudget> {
        let capacity = self.dense.capacity();
        if end > capacity {
            // Doubled, so that a list that grows by small updates is copied seldom.
            let wanted = if capacity == 0 {
                end
            } else {
                end.max((2 * capacity).min(limit))
            };
            let more = (wanted - capacity) * size_of::<u64>();
            self.charge.resize(self.bytes() + more as u64)?;
            self.dense.reserve_exact(wanted - self.dense.len());
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        (self.dense.capacity() * size_of::<u64>() + self.sparse.len() * CHUNK_BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &PageList) -> Vec<(usize, u64)> {
        let entries = (0..list.len()).map(|index| (index, list.entry(index)));
        entries.filter(|(_, entry)| *entry != 0).collect()
    }

    /// As mlx5_ib fills a large key: the parts are shorter than the page of their WQE (`MLX5_MAX_UMR_CHUNK`, umr.c).
    #[test]
    fn a_list_that_is_filled_in_parts_takes_no_more_than_its_key_needs() {
        let budget = Arc::new(Budget::new(u64::MAX));
        let mut list = PageList::new(&budget);
        let (limit, part) = (1 << 18, (1 << 17) - 8);
        for at in (0..limit).step_by(part) {
            let length = part.min(limit - at);
            list.write(at, vec![1; length].into_iter(), limit).unwrap();
        }
        assert_eq!(list.len(), limit);
        assert_eq!(budget.snapshot().used_bytes, (limit * size_of::<u64>()) as u64);
    }

    #[test]
    fn an_entry_far_behind_takes_a_chunk() {
        let budget = Arc::new(Budget::new(u64::MAX));
        let mut list = PageList::new(&budget);
        list.write(1 << 24, [7, 8].into_iter(), usize::MAX).unwrap();
        assert_eq!((list.len(), list.slice(0, 0)), ((1 << 24) + 2, None));
        assert_eq!(all(&list), [(1 << 24, 7), ((1 << 24) + 1, 8)]);
        assert_eq!(budget.snapshot().used_bytes, CHUNK_BYTES as u64);
        list.clear();
        assert_eq!((list.len(), budget.snapshot().used_bytes), (0, 0));
    }

    #[test]
    fn a_gap_that_is_filled_is_none() {
        let mut list = PageList::new(&Arc::default());
        list.write(2, [3, 4].into_iter(), usize::MAX).unwrap();
        assert_eq!(list.slice(0, 3), None);
        list.write(0, [1, 2].into_iter(), usize::MAX).unwrap();
        // What was behind the gap stays where it is.
        assert_eq!(list.slice(0, 1), Some(&[1, 2][..]));
        assert_eq!(all(&list), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        list.write(1, [5, 6, 7, 8].into_iter(), usize::MAX).unwrap();
        assert_eq!(list.slice(0, 4), Some(&[1, 5, 6, 7, 8][..]));
        list.set_bits(1 << 8);
        assert_eq!(list.entry(4), 8 | 1 << 8);
    }

    #[test]
    fn a_list_beyond_the_budget_stays_as_it_is() {
        let budget = Arc::new(Budget::new(80));
        let mut list = PageList::new(&budget);
        list.write(0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].into_iter(), usize::MAX)
            .unwrap();
        assert_eq!(list.write(10, [11].into_iter(), usize::MAX), Err(OverBudget));
        assert_eq!(list.write(5000, [11].into_iter(), usize::MAX), Err(OverBudget));
        assert_eq!((list.len(), list.entry(9)), (10, 10));
        assert_eq!(budget.snapshot().used_bytes, 80);
        drop(list);
        assert_eq!(budget.snapshot().used_bytes, 0);
    }
}
