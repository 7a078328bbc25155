//! Flow tables, executed as the driver programs them (`drivers/net/ethernet/mellanox/mlx5/core/fs_cmd.c`, `fs_core.c`).
//!
//! A table has entries by index, in groups of consecutive ones that look at the same bits of a frame. A frame enters at the root table of
//! its direction. The entry with the lowest index that it matches says what happens; without one the table's miss action does. Entries
//! lead only to tables of a higher level, so that every frame gets somewhere; those that are allowed to lead anywhere are bounded by
//! [`MAX_VISITS`].
//!
//! Of a frame the device sees [`fields::MatchFields`]: its outer headers and some miscellaneous parameters. The device parses no tunnels.
//! What is inside of one is absent: an entry that looks at inner headers matches no frame. All else that can be looked at (metadata
//! registers, programmable parser) is 0 in every frame.

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

use super::refcount::Reference;
use super::tis_tir_rqt::Tir;

pub use executor::{Delivery, MAX_VISITS, Outcome};
use flow_counter::FlowCounters;
pub use flow_counter::Traffic;
use tables::Tables;

/// Values of `table_type` (`enum fs_flow_table_type`, `include/linux/mlx5/fs.h`).
pub mod table_type {
    /// Frames from the wire.
    pub const NIC_RX: u8 = 0;
    /// Frames to the wire.
    pub const NIC_TX: u8 = 1;
    /// Frames from the wire for QPs.
    pub const RDMA_RX: u8 = 7;
    /// Frames from QPs.
    pub const RDMA_TX: u8 = 8;
}

/// Bits of `action` in the flow context (`MLX5_FLOW_CONTEXT_ACTION_*`, `include/linux/mlx5/mlx5_ifc.h`).
pub mod action {
    /// Let the frame pass.
    pub const ALLOW: u16 = 1;
    /// Drop it.
    pub const DROP: u16 = 1 << 1;
    /// Give a copy to each destination.
    pub const FWD_DEST: u16 = 1 << 2;
    /// Count it.
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

/// Most tables of a function.
pub const MAX_TABLES: usize = 1 << 12;
/// Most groups of a function.
pub const MAX_GROUPS: usize = 1 << 16;
/// Most entries of a function.
pub const MAX_ENTRIES: usize = 1 << 20;
/// Most flow counters of a function.
pub const MAX_COUNTERS: usize = 1 << 20;
/// Most destinations, and most counters, of an entry.
pub const MAX_DESTINATIONS: usize = 1 << 6;
/// Largest `log_size` of a table.
pub const MAX_LOG_SIZE: u8 = 24;

/// Why a command about flow tables is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SteeringError {
    /// No such table, or one of another type.
    #[error("There is no flow table {0} of this type.")]
    NoTable(u32),
    /// No such group in the table.
    #[error("There is no flow group {0} in this table.")]
    NoGroup(u32),
    /// No entry at the index.
    #[error("There is no flow table entry at index {0}.")]
    NoEntry(u32),
    /// No such flow counter.
    #[error("There is no flow counter {0}.")]
    NoCounter(u32),
    /// The group or counter is still in use.
    #[error("Flow table entries still refer to this.")]
    InUse,
    /// The table has groups.
    #[error("The flow table still has groups.")]
    HasGroups,
    /// Entries of other tables, or their miss actions, lead to the table.
    #[error("Other flow tables still lead to this one.")]
    IsDestination,
    /// The group is to look at outer headers, but at none of their bits.
    #[error("The flow group has no criteria in the outer headers it looks at.")]
    EmptyCriteria,
    /// The group is to look at bits of inner headers, but not at inner headers.
    #[error("The flow group has criteria in inner headers it does not look at.")]
    DisabledCriteria,
    /// There is an entry at the index already.
    #[error("There is a flow table entry at index {0} already.")]
    Exists(u32),
    /// The group reaches beyond the table, or into another group, or ends before it begins.
    #[error("The flow group cannot have the indexes {start} to {end}.")]
    BadRange {
        /// First index.
        start: u32,
        /// Last index.
        end: u32,
    },
    /// The entry is outside of its group.
    #[error("The index {0} is not one of the flow group's.")]
    OutsideGroup(u32),
    /// The table it would lead to is not of a higher level.
    #[error("A flow table of level {from} cannot lead to one of level {to}.")]
    Level {
        /// Level of the table.
        from: u8,
        /// Level of the table it would lead to.
        to: u8,
    },
    /// Neither allow nor drop nor forward.
    #[error("The flow table entry does nothing with a frame.")]
    NoAction,
    /// An action the device does not know, or actions that exclude each other.
    #[error("The actions {0:#x} cannot be carried out.")]
    BadAction(u16),
    /// Forward without a destination, or destinations without forward; the same for counters.
    #[error("The flow table entry's lists do not fit its actions.")]
    BadList,
    /// A table of this size is not possible.
    #[error("A flow table of 2^{0} entries is too large.")]
    TooLarge(u8),
    /// No more objects of this kind.
    #[error("The function has no room for more flow tables, groups, entries or counters.")]
    Full,
}

/// What commands about flow tables return.
pub type Result<T> = std::result::Result<T, SteeringError>;

/// Where a frame goes that matches no entry of a table: `table_miss_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Miss {
    /// Where it would go without flow tables.
    #[default]
    Default,
    /// To another table.
    Table(u32),
}

/// A new table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewTable {
    /// [`table_type`].
    pub table_type: u8,
    /// Its level.
    pub level: u8,
    /// Logarithm of the number of entries.
    pub log_size: u8,
    /// For frames that match no entry.
    pub miss: Miss,
}

/// A new group.
#[derive(Debug, Clone)]
pub struct NewGroup<'a> {
    /// Type of the table.
    pub table_type: u8,
    /// The table.
    pub table: u32,
    /// First index.
    pub start: u32,
    /// Last index.
    pub end: u32,
    /// Which parts of the criteria count: bit n for the part of 64 bytes at 64 * n.
    pub criteria_enable: u8,
    /// The bits that the entries look at.
    pub criteria: &'a FteMatchParam,
}

/// Where an entry sends frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination<T> {
    /// To another table.
    Table(u32),
    /// To a receiver.
    Tir(T),
}

/// What an entry does.
#[derive(Debug)]
pub struct Actions<T> {
    /// Bits of [`action`].
    pub action: u16,
    /// What completions of the frames carry; 24 bits.
    pub flow_tag: u32,
    /// Where they go.
    pub destinations: Vec<Destination<T>>,
    /// Objects that the destinations keep in use.
    pub uses: Vec<Reference>,
    /// The flow counters that count them.
    pub counters: Vec<u32>,
    /// Whether destinations may be tables of any level: `ignore_flow_level`.
    pub ignore_level: bool,
}

// Not derived: that would ask for a default receiver.
impl<T> Default for Actions<T> {
    fn default() -> Self {
        Self {
            action: 0,
            flow_tag: 0,
            destinations: Vec::new(),
            uses: Vec::new(),
            counters: Vec::new(),
            ignore_level: false,
        }
    }
}

/// A new entry.
#[derive(Debug)]
pub struct NewEntry<'a, T> {
    /// Type of the table.
    pub table_type: u8,
    /// The table.
    pub table: u32,
    /// The group.
    pub group: u32,
    /// The index in the table.
    pub index: u32,
    /// The values of the bits its group looks at.
    pub value: &'a FteMatchParam,
    /// What it does.
    pub actions: Actions<T>,
}

/// The flow tables of a function. Commands change them, many threads at a time find their way through them.
#[derive(Debug)]
pub struct FlowTables<T> {
    tables: RwLock<Tables<T>>,
    counters: RwLock<FlowCounters>,
}

/// The flow tables of a function, whose receivers are TIRs.
pub type Steering = FlowTables<Arc<Tir>>;

impl<T> Default for FlowTables<T> {
    fn default() -> Self {
        Self {
            tables: RwLock::default(),
            counters: RwLock::default(),
        }
    }
}

impl<T> FlowTables<T> {
    /// CREATE_FLOW_TABLE; returns its id.
    pub fn create_table(&self, table: NewTable) -> Result<u32> {
        self.tables.write().create_table(table)
    }

    /// MODIFY_FLOW_TABLE with the miss table selected.
    pub fn modify_table(&self, table_type: u8, table: u32, miss: Miss) -> Result<()> {
        self.tables.write().modify_table(table_type, table, miss)
    }

    /// DESTROY_FLOW_TABLE. A root table can be destroyed; its direction has none then.
    pub fn destroy_table(&self, table_type: u8, table: u32) -> Result<()> {
        self.tables.write().destroy_table(table_type, table)
    }

    /// SET_FLOW_TABLE_ROOT; without a table, frames go where they would go without flow tables.
    pub fn set_root(&self, table_type: u8, table: Option<u32>) -> Result<()> {
        self.tables.write().set_root(table_type, table)
    }

    /// CREATE_FLOW_GROUP; returns its id.
    pub fn create_group(&self, group: NewGroup<'_>) -> Result<u32> {
        self.tables.write().create_group(group)
    }

    /// DESTROY_FLOW_GROUP.
    pub fn destroy_group(&self, table_type: u8, table: u32, group: u32) -> Result<()> {
        self.tables.write().destroy_group(table_type, table, group)
    }

    /// SET_FLOW_TABLE_ENTRY of a new entry.
    pub fn create_entry(&self, entry: NewEntry<'_, T>) -> Result<()> {
        let counters = self.counters.read();
        self.tables.write().create_entry(entry, &counters)
    }

    /// SET_FLOW_TABLE_ENTRY of an entry there is: replaces the parts of its actions that `mask`, bits of [`modify`], names.
    pub fn modify_entry(&self, table_type: u8, table: u32, index: u32, mask: u8, actions: Actions<T>) -> Result<()> {
        let counters = self.counters.read();
        self.tables
            .write()
            .modify_entry(table_type, table, index, mask, actions, &counters)
    }

    /// DELETE_FLOW_TABLE_ENTRY.
    pub fn delete_entry(&self, table_type: u8, table: u32, index: u32) -> Result<()> {
        self.tables.write().delete_entry(table_type, table, index)
    }

    /// ALLOC_FLOW_COUNTER of `count` counters with consecutive ids; returns the first.
    pub fn alloc_counters(&self, count: u32) -> Result<u32> {
        self.counters.write().alloc(count)
    }

    /// DEALLOC_FLOW_COUNTER of a counter, or of all that were allocated together, by the first one's id.
    pub fn dealloc_counters(&self, id: u32) -> Result<()> {
        self.counters.write().dealloc(id)
    }

    /// QUERY_FLOW_COUNTER of `count` counters, which are set to 0 if `clear`.
    pub fn query_counters(&self, id: u32, count: u32, clear: bool) -> Result<Vec<Traffic>> {
        self.counters.read().query(id, count, clear)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.tables.write() = Tables::default();
        *self.counters.write() = FlowCounters::default();
    }

    /// How many objects of each kind there are.
    pub fn object_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = self.tables.read().object_counts();
        counts.insert("flow_counter", self.counters.read().len());
        counts
    }
}

#[cfg(test)]
mod tests;
