//! Flow tables with their groups and entries, and the commands that change them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::flow_counter::FlowCounters;
use super::group::{Entry, Group, check_criteria};
use super::{
    Actions, Destination, MAX_DESTINATIONS, MAX_ENTRIES, MAX_GROUPS, MAX_LOG_SIZE, MAX_TABLE_GROUPS, MAX_TABLES, Miss,
    NewEntry, NewGroup, NewTable, Result, SteeringError, action, modify,
};
use crate::hca::memory_budget::{Budget, Charge};

/// Largest id of a table or group (24 bits).
const MAX_ID: u32 = (1 << 24) - 1;

#[derive(Debug)]
pub(super) struct Table<T> {
    pub table_type: u8,
    pub level: u8,
    pub log_size: u8,
    pub miss: Miss,
    /// Groups by their first index.
    pub groups: BTreeMap<u32, Group<T>>,
    _charge: Charge,
}

impl<T> Table<T> {
    fn group_of_id(&mut self, id: u32) -> Result<&mut Group<T>> {
        self.groups
            .values_mut()
            .find(|group| group.id == id)
            .ok_or(SteeringError::NoGroup(id))
    }

    fn group_of_index(&mut self, index: u32) -> Result<&mut Group<T>> {
        let below = self.groups.range_mut(..=index).next_back();
        let group = below.map(|(_, group)| group).filter(|group| group.contains(index));
        group.ok_or(SteeringError::NoEntry(index))
    }
}

/// Number of ways to each table: of entries, and of misses. Tables that are still led to are kept, and frames wait
/// while that is found out.
#[derive(Debug, Default)]
struct Ways(HashMap<u32, usize, RandomState>);

impl Ways {
    fn add(&mut self, tables: impl IntoIterator<Item = u32>) {
        for id in tables {
            *self.0.entry(id).or_default() += 1;
        }
    }

    fn remove(&mut self, tables: impl IntoIterator<Item = u32>) {
        for id in tables {
            if let Some(count) = self.0.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&id);
                }
            }
        }
    }

    fn lead_to(&self, id: u32) -> bool {
        self.0.contains_key(&id)
    }
}

fn table_of_miss(miss: Miss) -> Option<u32> {
    match miss {
        Miss::Table(id) => Some(id),
        Miss::Default => None,
    }
}

fn tables_of_entry<T>(entry: &Entry<T>) -> Vec<u32> {
    let tables = entry.destinations.iter().filter_map(|destination| match destination {
        Destination::Table(id) => Some(*id),
        Destination::Tir(_) => None,
    });
    tables.collect()
}

#[derive(Debug)]
pub(super) struct Tables<T> {
    tables: HashMap<u32, Table<T>, RandomState>,
    roots: BTreeMap<u8, u32>,
    next_table: u32,
    next_group: u32,
    group_ids: HashSet<u32>,
    entries: usize,
    ways: Ways,
    budget: Arc<Budget>,
}

impl<T> Tables<T> {
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            tables: HashMap::default(),
            roots: BTreeMap::new(),
            next_table: 1,
            next_group: 1,
            group_ids: HashSet::new(),
            entries: 0,
            ways: Ways::default(),
            budget: budget.clone(),
        }
    }

    /// Removes all tables.
    pub fn clear(&mut self) {
        let budget = self.budget.clone();
        *self = Self::new(&budget);
    }

    pub fn create_table(&mut self, new: NewTable) -> Result<u32> {
        if new.log_size > MAX_LOG_SIZE {
            return Err(SteeringError::TooLarge(new.log_size));
        }
        if self.tables.len() >= MAX_TABLES {
            return Err(SteeringError::Full);
        }
        self.check_miss(new.table_type, new.level, new.miss)?;
        let charge = self.budget.charge(size_of::<Table<T>>() as u64)?;
        // There are far fewer tables than ids.
        while self.tables.contains_key(&self.next_table) {
            self.next_table = next_id(self.next_table);
        }
        let id = self.next_table;
        self.next_table = next_id(id);
        let NewTable {
            table_type,
            level,
            log_size,
            miss,
        } = new;
        self.ways.add(table_of_miss(miss));
        self.tables.insert(
            id,
            Table {
                table_type,
                level,
                log_size,
                miss,
                groups: BTreeMap::new(),
                _charge: charge,
            },
        );
        Ok(id)
    }

    pub fn modify_table(&mut self, table_type: u8, id: u32, miss: Miss) -> Result<()> {
        let level = self.table(table_type, id)?.level;
        self.check_miss(table_type, level, miss)?;
        let old = std::mem::replace(&mut self.table_mut(table_type, id)?.miss, miss);
        self.ways.remove(table_of_miss(old));
        self.ways.add(table_of_miss(miss));
        Ok(())
    }

    pub fn destroy_table(&mut self, table_type: u8, id: u32) -> Result<()> {
        if !self.table(table_type, id)?.groups.is_empty() {
            return Err(SteeringError::HasGroups);
        }
        if self.ways.lead_to(id) {
            return Err(SteeringError::IsDestination);
        }
        if let Some(table) = self.tables.remove(&id) {
            self.ways.remove(table_of_miss(table.miss));
        }
        self.roots.retain(|_, root| *root != id);
        Ok(())
    }

    pub fn set_root(&mut self, table_type: u8, id: Option<u32>) -> Result<()> {
        match id {
            Some(id) => {
                self.table(table_type, id)?;
                self.roots.insert(table_type, id);
            }
            None => drop(self.roots.remove(&table_type)),
        }
        Ok(())
    }

    pub fn create_group(&mut self, new: NewGroup<'_>) -> Result<u32> {
        let NewGroup {
            table_type,
            table: table_id,
            start,
            end,
            criteria_enable,
            criteria,
        } = new;
        if self.group_ids.len() >= MAX_GROUPS {
            return Err(SteeringError::Full);
        }
        let table = self.table(table_type, table_id)?;
        check_criteria(criteria_enable, criteria)?;
        let bad_range = SteeringError::BadRange { start, end };
        if start > end || u64::from(end) >= 1 << table.log_size {
            return Err(bad_range);
        }
        let below = table.groups.range(..=end).next_back();
        if below.is_some_and(|(_, group)| *group.range.end() >= start) {
            return Err(bad_range);
        }
        if table.groups.len() >= MAX_TABLE_GROUPS {
            return Err(SteeringError::Full);
        }
        let charge = self.budget.charge(Group::<T>::BYTES)?;
        // There are far fewer groups than ids.
        while !self.group_ids.insert(self.next_group) {
            self.next_group = next_id(self.next_group);
        }
        let id = self.next_group;
        self.next_group = next_id(id);
        let group = Group::new(id, start..=end, criteria_enable, criteria, charge);
        self.table_mut(table_type, table_id)?.groups.insert(start, group);
        Ok(id)
    }

    pub fn destroy_group(&mut self, table_type: u8, table: u32, id: u32) -> Result<()> {
        let table = self.table_mut(table_type, table)?;
        let group = table.group_of_id(id)?;
        if group.len() > 0 {
            return Err(SteeringError::InUse);
        }
        let start = *group.range.start();
        table.groups.remove(&start);
        self.group_ids.remove(&id);
        Ok(())
    }

    pub fn create_entry(&mut self, new: NewEntry<'_, T>, counters: &FlowCounters) -> Result<()> {
        if self.entries >= MAX_ENTRIES {
            return Err(SteeringError::Full);
        }
        let NewEntry {
            table_type,
            table,
            group,
            index,
            value,
            actions,
        } = new;
        let level = self.table(table_type, table)?.level;
        self.check_destinations(table_type, level, &actions)?;
        let mut entry = Entry {
            action: actions.action,
            flow_tag: actions.flow_tag,
            counters: actions
                .counters
                .iter()
                .map(|&id| Ok((id, counters.get(id)?)))
                .collect::<Result<_>>()?,
            destinations: actions.destinations,
            held: actions.held,
            charge: Charge::none(&self.budget),
        };
        check_actions(&entry)?;
        entry.charge.resize(entry.bytes())?;
        let group = self.table_mut(table_type, table)?.group_of_id(group)?;
        if !group.range.contains(&index) {
            return Err(SteeringError::OutsideGroup(index));
        }
        if group.contains(index) {
            return Err(SteeringError::Exists(index));
        }
        let ways = tables_of_entry(&entry);
        group.insert(index, value, entry);
        self.ways.add(ways);
        self.entries += 1;
        Ok(())
    }

    pub fn modify_entry(
        &mut self,
        table_type: u8,
        table: u32,
        index: u32,
        mask: u8,
        new: Actions<T>,
        counters: &FlowCounters,
    ) -> Result<()> {
        let level = self.table(table_type, table)?.level;
        if mask & modify::DESTINATION_LIST != 0 {
            self.check_destinations(table_type, level, &new)?;
        }
        let new_counters = match mask & modify::FLOW_COUNTERS {
            0 => Vec::new(),
            _ => new
                .counters
                .iter()
                .map(|&id| Ok((id, counters.get(id)?)))
                .collect::<Result<_>>()?,
        };
        let charge = Charge::none(&self.budget);
        let entry = self.table_mut(table_type, table)?.group_of_index(index)?.get_mut(index);
        let entry = entry.ok_or(SteeringError::NoEntry(index))?;
        let old_ways = tables_of_entry(entry);
        // All or nothing: lists that do not match the actions are swapped back.
        let mut changed = Entry {
            action: if mask & modify::ACTION != 0 {
                new.action
            } else {
                entry.action
            },
            flow_tag: if mask & modify::FLOW_TAG != 0 {
                new.flow_tag
            } else {
                entry.flow_tag
            },
            destinations: new.destinations,
            held: new.held,
            counters: new_counters,
            charge,
        };
        exchange(entry, &mut changed, mask);
        let bytes = changed.bytes();
        match check_actions(&changed).and_then(|()| Ok(changed.charge.resize(bytes)?)) {
            Ok(()) => {
                let new_ways = tables_of_entry(&changed);
                *entry = changed;
                self.ways.remove(old_ways);
                self.ways.add(new_ways);
                Ok(())
            }
            Err(error) => {
                exchange(entry, &mut changed, mask);
                Err(error)
            }
        }
    }

    pub fn delete_entry(&mut self, table_type: u8, table: u32, index: u32) -> Result<()> {
        let group = self.table_mut(table_type, table)?.group_of_index(index)?;
        let entry = group.remove(index).ok_or(SteeringError::NoEntry(index))?;
        self.entries -= 1;
        self.ways.remove(tables_of_entry(&entry));
        Ok(())
    }

    pub fn root(&self, table_type: u8) -> Option<&Table<T>> {
        self.find(*self.roots.get(&table_type)?)
    }

    pub fn find(&self, id: u32) -> Option<&Table<T>> {
        self.tables.get(&id)
    }

    pub fn object_counts(&self) -> BTreeMap<&'static str, usize> {
        BTreeMap::from([
            ("flow_table", self.tables.len()),
            ("flow_group", self.group_ids.len()),
            ("flow_table_entry", self.entries),
        ])
    }

    fn table(&self, table_type: u8, id: u32) -> Result<&Table<T>> {
        self.tables
            .get(&id)
            .filter(|table| table.table_type == table_type)
            .ok_or(SteeringError::NoTable(id))
    }

    fn table_mut(&mut self, table_type: u8, id: u32) -> Result<&mut Table<T>> {
        self.tables
            .get_mut(&id)
            .filter(|table| table.table_type == table_type)
            .ok_or(SteeringError::NoTable(id))
    }

    fn check_miss(&self, table_type: u8, level: u8, miss: Miss) -> Result<()> {
        match miss {
            Miss::Default => Ok(()),
            Miss::Table(id) => self.check_level(table_type, level, id, false),
        }
    }

    fn check_destinations(&self, table_type: u8, level: u8, actions: &Actions<T>) -> Result<()> {
        actions
            .destinations
            .iter()
            .try_for_each(|destination| match destination {
                Destination::Table(id) => self.check_level(table_type, level, *id, actions.ignore_level),
                Destination::Tir(_) => Ok(()),
            })
    }

    fn check_level(&self, table_type: u8, from: u8, id: u32, ignore_level: bool) -> Result<()> {
        let to = self.table(table_type, id)?.level;
        if to <= from && !ignore_level {
            return Err(SteeringError::Level { from, to });
        }
        Ok(())
    }
}

/// Swaps the lists that `mask` does not select.
fn exchange<T>(entry: &mut Entry<T>, changed: &mut Entry<T>, mask: u8) {
    if mask & modify::DESTINATION_LIST == 0 {
        std::mem::swap(&mut entry.destinations, &mut changed.destinations);
        std::mem::swap(&mut entry.held, &mut changed.held);
    }
    if mask & modify::FLOW_COUNTERS == 0 {
        std::mem::swap(&mut entry.counters, &mut changed.counters);
    }
}

fn check_actions<T>(entry: &Entry<T>) -> Result<()> {
    let bad = SteeringError::BadAction(entry.action);
    if entry.action & !(action::ALLOW | action::DROP | action::FWD_DEST | action::COUNT) != 0 {
        return Err(bad);
    }
    match (entry.action & (action::ALLOW | action::DROP | action::FWD_DEST)).count_ones() {
        0 => return Err(SteeringError::NoAction),
        1 => {}
        _ => return Err(bad),
    }
    let fits = |bit: u16, length: usize| (entry.action & bit != 0) == (length > 0) && length <= MAX_DESTINATIONS;
    if !fits(action::FWD_DEST, entry.destinations.len()) || !fits(action::COUNT, entry.counters.len()) {
        return Err(SteeringError::BadList);
    }
    Ok(())
}

fn next_id(id: u32) -> u32 {
    if id >= MAX_ID { 1 } else { id + 1 }
}
