//! A frame's way through the tables.

use crate::frame::view::FrameView;

use super::fields::MatchFields;
use super::group::{Entry, Group};
use super::tables::{Table, Tables};
use super::{Destination, FlowTables, Miss, action};

/// Most tables a frame's copies visit together; a copy that would go on is dropped. The levels keep the driver's own tables far below.
pub const MAX_VISITS: usize = 256;

/// A copy of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<T> {
    /// Who gets it.
    pub target: T,
    /// The tag of the last entry on its way that has one; 0 without.
    pub flow_tag: u32,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to receivers.
    Deliver,
    /// An entry lets it pass.
    Allow,
    /// An entry drops it, or it ran in circles.
    Drop,
    /// No entry wants it, or there are no tables: it goes where it would go without.
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
    /// Finds out what becomes of a frame, and counts it. Its receivers are in `deliveries`, whose old contents go.
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
    /// Follows a copy of the frame from a table on.
    fn follow(&mut self, start: &'a Table<T>, start_tag: u32) {
        // Copies that are still to be followed. Empty, and without memory, unless an entry has several tables as destinations.
        let mut waiting = Vec::new();
        let mut next = Some((start, start_tag));
        while let Some((table, tag)) = next.or_else(|| waiting.pop()) {
            if self.visits == MAX_VISITS {
                log::debug!("A frame went through {MAX_VISITS} flow tables and is dropped.");
                return;
            }
            self.visits += 1;
            next = match table
                .groups
                .values()
                .find_map(|group: &Group<T>| group.find(&self.fields))
            {
                Some(entry) => self.act(entry, tag, &mut waiting),
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

    /// Does what an entry says; returns the table where the frame goes on.
    fn act(
        &mut self,
        entry: &'a Entry<T>,
        tag: u32,
        waiting: &mut Vec<(&'a Table<T>, u32)>,
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
                        // No more than can ever be visited.
                        Some(_) if waiting.len() < MAX_VISITS => waiting.push((table, flow_tag)),
                        Some(_) => {}
                    }
                }
            }
        }
        next
    }
}
