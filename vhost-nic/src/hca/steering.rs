//! Steering: flow tables as the driver programs them (`drivers/net/ethernet/mellanox/mlx5/core/fs_cmd.c`, `fs_core.c`).
//!
//! A table has entries by index, in groups of consecutive indexes that match on the same bits of a frame. A frame
//! enters at the root table of its direction. The matching entry with the lowest index decides; without one, the
//! table's miss action does. Entries forward only to tables of a higher level, so that every walk ends; entries that
//! may forward to any level (`ignore_flow_level`) are bounded by [`MAX_VISITS`].
//!
//! Entries match on [`fields::MatchFields`]: outer headers and some miscellaneous parameters. Tunnels are not parsed;
//! entries with inner-header criteria never match. All other fields (metadata registers, programmable parser) are 0 in
//! every frame.

mod executor;
pub mod fields;
mod flow_counter;
mod group;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx5_prm::steering::FteMatchParam;
use parking_lot::RwLock;
use thiserror::Error;
use vhost_daemon::Counter;

use super::memory_budget::{Budget, OverBudget};
use super::refcount::Reference;
use super::tis_tir_rqt::Tir;

pub use executor::{Delivery, MAX_COPIES, MAX_VISITS, Outcome};
use flow_counter::FlowCounters;
pub use flow_counter::Traffic;
use tables::Tables;

/// Values of `table_type` (`enum fs_flow_table_type`, `include/linux/mlx5/fs.h`).
pub mod table_type {
    /// Received frames.
    pub const NIC_RX: u8 = 0;
    /// Frames to be sent.
    pub const NIC_TX: u8 = 1;
    /// Received RoCE packets.
    pub const RDMA_RX: u8 = 7;
    /// RoCE packets to be sent.
    pub const RDMA_TX: u8 = 8;
}

/// Bits of `action` in the flow context (`MLX5_FLOW_CONTEXT_ACTION_*`, `include/linux/mlx5/mlx5_ifc.h`).
pub mod action {
    /// Allow the frame.
    pub const ALLOW: u16 = 1;
    /// Drop the frame.
    pub const DROP: u16 = 1 << 1;
    /// Forward a copy to each destination.
    pub const FWD_DEST: u16 = 1 << 2;
    /// Count the frame.
    pub const COUNT: u16 = 1 << 3;
}

/// Bits of `modify_enable_mask` (`MLX5_SET_FTE_MODIFY_ENABLE_MASK_*`, `include/linux/mlx5/mlx5_ifc.h`).
pub mod modify {
    /// The action.
    pub const ACTION: u8 = 1;
    /// The flow tag.
    pub const FLOW_TAG: u8 = 1 << 1;
    /// The destinations.
    pub const DESTINATION_LIST: u8 = 1 << 2;
    /// The flow counters.
    pub const FLOW_COUNTERS: u8 = 1 << 3;
}

/// Maximum number of tables of a function.
pub const MAX_TABLES: usize = 1 << 12;
/// Maximum number of groups of a function.
pub const MAX_GROUPS: usize = 1 << 16;
/// Maximum number of groups of a table: a frame that enters it is looked up in each. The driver plans for
/// few; beyond these it makes a group for each entry with other criteria (`alloc_auto_flow_group`, `core/fs_core.c`).
pub const MAX_TABLE_GROUPS: usize = 1 << 10;
/// Maximum number of entries of a function.
pub const MAX_ENTRIES: usize = 1 << 20;
/// Maximum number of flow counters of a function.
pub const MAX_COUNTERS: usize = 1 << 20;
/// Maximum number of destinations, and of counters, of an entry.
pub const MAX_DESTINATIONS: usize = 1 << 6;
/// Largest `log_size` of a table.
pub const MAX_LOG_SIZE: u8 = 24;

/// Reason why a steering command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SteeringError {
    /// No such table, or one of another type.
    #[error("no flow table {0} of this type")]
    NoTable(u32),
    /// No such group in the table.
    #[error("no flow group {0} in this table")]
    NoGroup(u32),
    /// No entry at the index.
    #[error("no flow table entry at index {0}")]
    NoEntry(u32),
    /// No such flow counter.
    #[error("no flow counter {0}")]
    NoCounter(u32),
    /// The group or counter is in use.
    #[error("flow table entries refer to the object")]
    InUse,
    /// The table has groups.
    #[error("the flow table has groups")]
    HasGroups,
    /// Entries or miss actions of other tables forward to the table.
    #[error("other flow tables forward to this one")]
    IsDestination,
    /// `match_criteria_enable` selects outer headers, and their criteria are 0.
    #[error("the flow group enables outer headers without criteria")]
    EmptyCriteria,
    /// `match_criteria_enable` does not select inner headers, and their criteria are not 0.
    #[error("the flow group has criteria in inner headers without enabling them")]
    DisabledCriteria,
    /// The index has an entry.
    #[error("index {0} has a flow table entry")]
    Exists(u32),
    /// The range exceeds the table, overlaps another group, or ends before it begins.
    #[error("the flow group cannot have the indexes {start} to {end}")]
    BadRange {
        /// First index.
        start: u32,
        /// Last index.
        end: u32,
    },
    /// The index is outside the group.
    #[error("index {0} is outside the flow group")]
    OutsideGroup(u32),
    /// The destination table is not of a higher level.
    #[error("a flow table of level {from} cannot forward to one of level {to}")]
    Level {
        /// Level of the table.
        from: u8,
        /// Level of the destination table.
        to: u8,
    },
    /// Neither allow nor drop nor forward.
    #[error("the flow table entry neither allows, drops nor forwards")]
    NoAction,
    /// Unsupported action, or actions that exclude each other.
    #[error("the actions {0:#x} are not supported")]
    BadAction(u16),
    /// Forward without a destination, or destinations without forward; likewise for counters.
    #[error("the flow table entry's lists do not match its actions")]
    BadList,
    /// The table is too large.
    #[error("a flow table of 2^{0} entries is too large")]
    TooLarge(u8),
    /// The function has the maximum number of objects of the kind.
    #[error("no more flow tables, groups, entries or counters")]
    Full,
    /// No host memory is left for the object.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Result of a steering command.
pub type Result<T> = std::result::Result<T, SteeringError>;

/// `table_miss_action`: destination of a frame that matches no entry of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Miss {
    /// Default destination, as without flow tables.
    #[default]
    Default,
    /// Another table.
    Table(u32),
}

/// Parameters of CREATE_FLOW_TABLE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewTable {
    /// Type, see [`table_type`].
    pub table_type: u8,
    /// Level of the table.
    pub level: u8,
    /// Log2 of the number of entries.
    pub log_size: u8,
    /// Miss action.
    pub miss: Miss,
}

/// Parameters of CREATE_FLOW_GROUP.
#[derive(Debug, Clone)]
pub struct NewGroup<'a> {
    /// Type of the table.
    pub table_type: u8,
    /// Id of the table.
    pub table: u32,
    /// First index.
    pub start: u32,
    /// Last index.
    pub end: u32,
    /// `match_criteria_enable`: bit n enables the 64 bytes of criteria at 64 * n.
    pub criteria_enable: u8,
    /// Mask of the bits the entries match on.
    pub criteria: &'a FteMatchParam,
}

/// Destination of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination<T> {
    /// Another table.
    Table(u32),
    /// A receiver.
    Tir(T),
}

/// Actions of an entry.
#[derive(Debug)]
pub struct Actions<T> {
    /// Bits of [`action`].
    pub action: u16,
    /// Tag reported in CQEs (24 bits).
    pub flow_tag: u32,
    /// Destinations of the frames.
    pub destinations: Vec<Destination<T>>,
    /// References to the destinations.
    pub held: Vec<Reference>,
    /// Ids of the flow counters.
    pub counters: Vec<u32>,
    /// `ignore_flow_level`: destinations may be tables of any level.
    pub ignore_level: bool,
}

// Not derived: that would require T: Default.
impl<T> Default for Actions<T> {
    fn default() -> Self {
        Self {
            action: 0,
            flow_tag: 0,
            destinations: Vec::new(),
            held: Vec::new(),
            counters: Vec::new(),
            ignore_level: false,
        }
    }
}

/// Parameters of SET_FLOW_TABLE_ENTRY for a new entry.
#[derive(Debug)]
pub struct NewEntry<'a, T> {
    /// Type of the table.
    pub table_type: u8,
    /// Id of the table.
    pub table: u32,
    /// Id of the group.
    pub group: u32,
    /// Index in the table.
    pub index: u32,
    /// Values of the bits in the group's criteria.
    pub value: &'a FteMatchParam,
    /// Actions of the entry.
    pub actions: Actions<T>,
}

/// Flow tables of a function. Commands change them; many threads classify frames at a time.
#[derive(Debug)]
pub struct FlowTables<T> {
    tables: RwLock<Tables<T>>,
    /// Lock order: before the tables.
    counters: RwLock<FlowCounters>,
    /// Frames of which copies were dropped at [`MAX_VISITS`] or [`MAX_COPIES`].
    exhausted: Counter,
}

/// Flow tables of a function whose receivers are TIRs.
pub type Steering = FlowTables<Arc<Tir>>;

impl<T> FlowTables<T> {
    /// Creates the tables of a function, without any, that are charged to `budget`.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            tables: RwLock::new(Tables::new(budget)),
            counters: RwLock::new(FlowCounters::new(budget)),
            exhausted: Counter::default(),
        }
    }

    /// Creates a table (CREATE_FLOW_TABLE); returns its id.
    pub fn create_table(&self, table: NewTable) -> Result<u32> {
        self.tables.write().create_table(table)
    }

    /// Changes the miss action (MODIFY_FLOW_TABLE).
    pub fn modify_table(&self, table_type: u8, table: u32, miss: Miss) -> Result<()> {
        self.tables.write().modify_table(table_type, table, miss)
    }

    /// Destroys a table (DESTROY_FLOW_TABLE). Destroying a root table leaves its direction without one.
    pub fn destroy_table(&self, table_type: u8, table: u32) -> Result<()> {
        self.tables.write().destroy_table(table_type, table)
    }

    /// Sets the root table of a direction, or none (SET_FLOW_TABLE_ROOT): then frames take the default destination.
    pub fn set_root(&self, table_type: u8, table: Option<u32>) -> Result<()> {
        self.tables.write().set_root(table_type, table)
    }

    /// Creates a group (CREATE_FLOW_GROUP); returns its id.
    pub fn create_group(&self, group: NewGroup<'_>) -> Result<u32> {
        self.tables.write().create_group(group)
    }

    /// Destroys a group (DESTROY_FLOW_GROUP).
    pub fn destroy_group(&self, table_type: u8, table: u32, group: u32) -> Result<()> {
        self.tables.write().destroy_group(table_type, table, group)
    }

    /// Creates an entry (SET_FLOW_TABLE_ENTRY).
    pub fn create_entry(&self, entry: NewEntry<'_, T>) -> Result<()> {
        let counters = self.counters.read();
        self.tables.write().create_entry(entry, &counters)
    }

    /// Replaces the parts of an entry's actions selected by `mask`, bits of [`modify`] (SET_FLOW_TABLE_ENTRY).
    pub fn modify_entry(&self, table_type: u8, table: u32, index: u32, mask: u8, actions: Actions<T>) -> Result<()> {
        let counters = self.counters.read();
        self.tables
            .write()
            .modify_entry(table_type, table, index, mask, actions, &counters)
    }

    /// Deletes an entry (DELETE_FLOW_TABLE_ENTRY).
    pub fn delete_entry(&self, table_type: u8, table: u32, index: u32) -> Result<()> {
        self.tables.write().delete_entry(table_type, table, index)
    }

    /// Allocates `count` counters with consecutive ids (ALLOC_FLOW_COUNTER); returns the first id.
    pub fn alloc_counters(&self, count: u32) -> Result<u32> {
        self.counters.write().alloc(count)
    }

    /// Frees the counters allocated together with `id` as the first (DEALLOC_FLOW_COUNTER).
    pub fn dealloc_counters(&self, id: u32) -> Result<()> {
        self.counters.write().dealloc(id)
    }

    /// Returns `count` counters from `id` on, and resets them if `clear` (QUERY_FLOW_COUNTER).
    pub fn query_counters(&self, id: u32, count: u32, clear: bool) -> Result<Vec<Traffic>> {
        self.counters.read().query(id, count, clear)
    }

    /// Removes all tables and counters.
    pub fn clear(&self) {
        self.tables.write().clear();
        self.counters.write().clear();
    }

    /// Number of frames of which copies were dropped at a limit of the walk.
    pub fn exhausted(&self) -> u64 {
        self.exhausted.get()
    }

    /// Returns the number of objects of each kind.
    pub fn object_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = self.tables.read().object_counts();
        counts.insert("flow_counter", self.counters.read().len());
        counts
    }
}

#[cfg(test)]
mod tests;
