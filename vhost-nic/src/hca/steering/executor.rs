//! Classification of frames by the flow tables.

use crate::frame::view::FrameView;

use super::fields::MatchFields;
use super::group::{Entry, Group};
use super::tables::{Table, Tables};
use super::{Destination, FlowTables, MAX_DESTINATIONS, Miss, action};

/// Maximum number of tables and of their groups that the copies of a frame visit together; copies beyond it are
/// dropped. A frame is classified on the thread of its sender, which must not pay for tables of the receiver's making.
/// The driver's tables have few levels and groups.
pub const MAX_VISITS: usize = 2048;
/// Maximum number of copies of a frame; those beyond it are dropped.
pub const MAX_COPIES: usize = MAX_DESTINATIONS;

/// Delivery of a copy of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<T> {
    /// Destination.
    pub target: T,
    /// Flow tag of the last entry on the path with one, or 0.
    pub flow_tag: u32,
}

/// Outcome of classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Delivered to receivers.
    Deliver,
    /// Allowed by an entry.
    Allow,
    /// Dropped by an entry, or after [`MAX_VISITS`] tables and groups.
    Drop,
    /// No entry matched, or there is no root table: the frame takes the default destination.
    Miss,
}

struct Walk<'a, T> {
    tables: &'a Tables<T>,
    fields: MatchFields,
    length: usize,
    visits: usize,
    deliveries: &'a mut Vec<Delivery<T>>,
    allowed: bool,
    missed: bool,
    /// Copies of the frame were dropped at a limit.
    exhausted: bool,
}

impl<T: Clone> FlowTables<T> {
    /// Classifies a frame and updates flow counters. Replaces the contents of `deliveries` by the frame's receivers.
    pub fn classify(&self, table_type: u8, view: &FrameView<'_>, deliveries: &mut Vec<Delivery<T>>) -> Outcome {
        deliveries.clear();
        let tables = self.tables.read();
        let Some(root) = tables.root(table_type) else {
            return Outcome::Miss;
        };
        let mut walk = Walk {
            tables: &tables,
            fields: MatchFields::new(view),
            length: view.bytes().len(),
            visits: 0,
            deliveries,
            allowed: false,
            missed: false,
            exhausted: false,
        };
        walk.follow(root, 0);
        if walk.exhausted {
            self.exhausted.increment();
        }
        match walk {
            Walk { deliveries, .. } if !deliveries.is_empty() => Outcome::Deliver,
            Walk { allowed: true, .. } => Outcome::Allow,
            Walk { missed: true, .. } => Outcome::Miss,
            Walk { .. } => Outcome::Drop,
        }
    }
}

impl<'a, T: Clone> Walk<'a, T> {
    /// Follows a copy of the frame through the tables from `start` on.
    fn follow(&mut self, start: &'a Table<T>, start_tag: u32) {
        // Copies yet to be followed. Empty, and without an allocation, unless an entry forwards to several tables.
        let mut pending = Vec::new();
        let mut next = Some((start, start_tag));
        while let Some((table, tag)) = next.or_else(|| pending.pop()) {
            // The last table may exceed the limit by its groups.
            if self.visits >= MAX_VISITS {
                self.exhausted = true;
                return;
            }
            self.visits += 1;
            let fields = &self.fields;
            let find = |group: &'a Group<T>| {
                self.visits += 1;
                group.find(fields)
            };
            next = match table.groups.values().find_map(find) {
                Some(entry) => self.act(entry, tag, &mut pending),
                None => match table.miss {
                    Miss::Default => {
                        self.missed = true;
                        None
                    }
                    Miss::Table(id) => self.tables.find(id).map(|table| (table, tag)),
                },
            };
        }
    }

    /// Performs the actions of an entry; returns the table where the frame continues.
    fn act(
        &mut self,
        entry: &'a Entry<T>,
        tag: u32,
        pending: &mut Vec<(&'a Table<T>, u32)>,
    ) -> Option<(&'a Table<T>, u32)> {
        for (_, counter) in &entry.counters {
            counter.count(self.length);
        }
        self.allowed |= entry.action & action::ALLOW != 0;
        let flow_tag = if entry.flow_tag != 0 { entry.flow_tag } else { tag };
        let mut next = None;
        for destination in &entry.destinations {
            match destination {
                Destination::Tir(_) if self.deliveries.len() >= MAX_COPIES => self.exhausted = true,
                Destination::Tir(target) => self.deliveries.push(Delivery {
                    target: target.clone(),
                    flow_tag,
                }),
                Destination::Table(id) => {
                    let Some(table) = self.tables.find(*id) else { continue };
                    match next {
                        None => next = Some((table, flow_tag)),
                        // More could never be visited.
                        Some(_) if pending.len() < MAX_VISITS => pending.push((table, flow_tag)),
                        Some(_) => self.exhausted = true,
                    }
                }
            }
        }
        next
    }
}
