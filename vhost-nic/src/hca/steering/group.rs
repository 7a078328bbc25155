//! Flow groups: entries that match on the same bits, looked up by the values of these bits.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mlx5_prm::steering::FteMatchParam;
use zerocopy::IntoBytes;

use super::fields::{MatchFields, WORDS};
use super::flow_counter::FlowCounter;
use super::{Destination, Reference, Result, SteeringError};
use crate::hca::memory_budget::Charge;

/// Bytes of a part of the match parameters.
const PART: usize = 64;
/// Bits of outer and inner headers in `match_criteria_enable`, which are their indexes among the parts.
const OUTER_HEADERS: usize = 0;
const INNER_HEADERS: usize = 2;

/// Actions of an entry, resolved for the executor.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub action: u16,
    pub flow_tag: u32,
    pub destinations: Vec<Destination<T>>,
    /// References to the destinations.
    pub held: Vec<Reference>,
    pub counters: Vec<(u32, Arc<FlowCounter>)>,
    pub charge: Charge,
}

impl<T> Entry<T> {
    /// Most bytes that it takes in its group.
    pub fn bytes(&self) -> u64 {
        let lists = self.destinations.len() * (size_of::<Destination<T>>() + size_of::<Reference>())
            + self.counters.len() * size_of::<(u32, Arc<FlowCounter>)>();
        // Its value is in the rule and, as a key, in the map.
        let keys = 2 * (WORDS * size_of::<u32>() + size_of::<Key>());
        (size_of::<Rule<T>>() + keys + lists) as u64
    }
}

/// Checks that `match_criteria_enable` agrees with the non-zero criteria, as far as hardware is known to require it.
pub(super) fn check_criteria(enable: u8, criteria: &FteMatchParam) -> Result<()> {
    let has_bits = |part: usize| criteria.as_bytes()[part * PART..][..PART].iter().any(|byte| *byte != 0);
    if enable & 1 << OUTER_HEADERS != 0 && !has_bits(OUTER_HEADERS) {
        return Err(SteeringError::EmptyCriteria);
    }
    if enable & 1 << INNER_HEADERS == 0 && has_bits(INNER_HEADERS) {
        return Err(SteeringError::DisabledCriteria);
    }
    Ok(())
}

/// An entry with its match value.
#[derive(Debug)]
struct Rule<T> {
    /// Values of the words its group matches on; `None` if no frame can match.
    key: Option<Key>,
    entry: Entry<T>,
}

/// Words of a frame that a group matches on, masked.
type Key = Box<[u32]>;

#[derive(Debug)]
pub(super) struct Group<T> {
    pub id: u32,
    pub range: RangeInclusive<u32>,
    /// Indexes of the words with a non-zero mask, and the masks.
    mask: Vec<(usize, u32)>,
    /// Mask of the fields that are 0 in every frame: all behind the miscellaneous parameters.
    absent: Box<[u8]>,
    rules: BTreeMap<u32, Rule<T>>,
    /// Indexes of the rules with each key, lowest first.
    by_key: HashMap<Key, Vec<u32>, RandomState>,
    _charge: Charge,
}

impl<T> Group<T> {
    /// Bytes of a group without entries.
    pub const BYTES: u64 = (size_of::<Self>() + size_of::<FteMatchParam>()) as u64;

    pub fn new(
        id: u32,
        range: RangeInclusive<u32>,
        criteria_enable: u8,
        criteria: &FteMatchParam,
        charge: Charge,
    ) -> Self {
        let mut bytes = [0; size_of::<FteMatchParam>()];
        bytes.copy_from_slice(criteria.as_bytes());
        for (part, bytes) in bytes.chunks_exact_mut(PART).enumerate() {
            if criteria_enable & 1 << part == 0 {
                bytes.fill(0);
            }
        }
        let (seen, absent) = split(&bytes);
        let mask = seen
            .0
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, mask)| *mask != 0)
            .collect();
        Self {
            id,
            range,
            mask,
            absent: absent.into(),
            rules: BTreeMap::new(),
            by_key: HashMap::default(),
            _charge: charge,
        }
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        self.rules.get_mut(&index).map(|rule| &mut rule.entry)
    }

    pub fn contains(&self, index: u32) -> bool {
        self.rules.contains_key(&index)
    }

    pub fn insert(&mut self, index: u32, value: &FteMatchParam, entry: Entry<T>) {
        let key = self.key_of(value);
        if let Some(key) = &key {
            let indexes = self.by_key.entry(key.clone()).or_default();
            let at = indexes.partition_point(|&other| other < index);
            indexes.insert(at, index);
        }
        self.rules.insert(index, Rule { key, entry });
    }

    pub fn remove(&mut self, index: u32) -> Option<Entry<T>> {
        let rule = self.rules.remove(&index)?;
        if let Some(key) = rule.key
            && let Some(indexes) = self.by_key.get_mut(&key)
        {
            indexes.retain(|&other| other != index);
            if indexes.is_empty() {
                self.by_key.remove(&key);
            }
        }
        Some(rule.entry)
    }

    /// Returns the matching entry with the lowest index.
    pub fn find(&self, fields: &MatchFields) -> Option<&Entry<T>> {
        let mut key = [0; WORDS];
        for (word, (at, mask)) in key.iter_mut().zip(&self.mask) {
            *word = fields.0[*at] & mask;
        }
        let index = self.by_key.get(&key[..self.mask.len()])?.first()?;
        self.rules.get(index).map(|rule| &rule.entry)
    }

    fn key_of(&self, value: &FteMatchParam) -> Option<Key> {
        let (value, absent) = split(value.as_bytes());
        let inner = INNER_HEADERS * PART - 4 * WORDS;
        if self.absent[inner..inner + PART].iter().any(|&mask| mask != 0)
            || self.absent.iter().zip(absent).any(|(mask, value)| mask & value != 0)
        {
            return None;
        }
        Some(self.mask.iter().map(|&(at, mask)| value.0[at] & mask).collect())
    }
}

/// Splits match parameters into the fields frames have and those that are 0 in every frame.
fn split(bytes: &[u8]) -> (MatchFields, &[u8]) {
    match bytes.split_first_chunk() {
        Some((seen, absent)) => (MatchFields::from_bytes(seen), absent),
        None => (MatchFields([0; WORDS]), &[]),
    }
}
