//! Classification of frames by the flow tables.

use crate::frame::view::FrameView;

use super::fields::MatchFields;
use super::group::{Entry, Group};
use super::tables::{Table, Tables};
use super::{Destination, FlowTables, Miss, action};

/// Maximum number of tables that the copies of a frame visit together; copies beyond it are dropped. The driver's
/// tables have far fewer levels.
pub const MAX_VISITS: usize = 256;

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
    /// Dropped by an entry, or after [`MAX_VISITS`] tables.
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
        };
        walk.follow(root, 0);
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
            if self.visits == MAX_VISITS {
                log::debug!("dropped a frame that has visited {MAX_VISITS} flow tables");
                return;
            }
            self.visits += 1;
            next = match table
                .groups
                .values()
                .find_map(|group: &Group<T>| group.find(&self.fields))
            {
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
                        Some(_) => {}
                    }
                }
            }
        }
        next
    }
}
