//! Commands on flow tables and flow counters.

use mlx5_prm::command::Status;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::steering::*;
use zerocopy::{FromBytes, IntoBytes};

use std::sync::Arc;

use super::command::{Commands, Input, OVER_BUDGET, Refusal, Reply, Result, bad_parameter, in_use, no_object, no_such};
use super::{Firmware, syndrome};
use crate::hca::Hca;
use crate::hca::steering::{Actions, Destination, Miss, NewEntry, NewGroup, NewTable, SteeringError, table_type};
use crate::hca::tis_tir_rqt::Tir;

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_FLOW_TABLE, create_table),
    (Opcode::MODIFY_FLOW_TABLE, modify_table),
    (Opcode::DESTROY_FLOW_TABLE, destroy_table),
    (Opcode::SET_FLOW_TABLE_ROOT, set_root),
    (Opcode::CREATE_FLOW_GROUP, create_group),
    (Opcode::DESTROY_FLOW_GROUP, destroy_group),
    (Opcode::SET_FLOW_TABLE_ENTRY, set_entry),
    (Opcode::DELETE_FLOW_TABLE_ENTRY, delete_entry),
    (Opcode::ALLOC_FLOW_COUNTER, alloc_counter),
    (Opcode::DEALLOC_FLOW_COUNTER, dealloc_counter),
    (Opcode::QUERY_FLOW_COUNTER, query_counter),
];

/// `table_miss_action` (`MLX5_FLOW_TABLE_MISS_ACTION_*`).
const MISS_DEFAULT: u8 = 0;
const MISS_FORWARD: u8 = 1;
/// `op_mod` of SET_FLOW_TABLE_ROOT.
const ROOT_SET: u16 = 0;
const ROOT_RESET: u16 = 1;
/// `op_mod` of SET_FLOW_TABLE_ENTRY.
const ENTRY_NEW: u16 = 0;
const ENTRY_MODIFY: u16 = 1;
/// Field of MODIFY_FLOW_TABLE: the miss table (`MLX5_MODIFY_FLOW_TABLE_MISS_TABLE_ID`).
const MODIFY_MISS_TABLE: u16 = 1 << 0;
/// Types of destinations (`MLX5_IFC_FLOW_DESTINATION_TYPE_*`).
const DESTINATION_VPORT: u8 = 0;
const DESTINATION_TABLE: u8 = 1;
const DESTINATION_TIR: u8 = 2;
const DESTINATION_UPLINK: u8 = 8;
/// Flow counters per unit of `flow_counter_bulk`.
const BULK_UNIT: u32 = 128;

impl From<SteeringError> for Refusal {
    fn from(error: SteeringError) -> Self {
        use SteeringError::*;
        let (status, reason) = match error {
            NoTable(_) => return no_object("there is no such flow table"),
            NoGroup(_) => return no_object("there is no such flow group"),
            NoEntry(_) => (Status::BadIndex, "there is no such flow table entry"),
            NoCounter(_) => return no_object("there is no such flow counter"),
            InUse => return in_use("the flow group or counter is in use"),
            HasGroups => {
                return bad_parameter("the flow table has groups").with_syndrome(syndrome::FLOW_TABLE_HAS_GROUPS);
            }
            IsDestination => {
                let refusal = bad_parameter("other flow tables forward to the flow table");
                return refusal.with_syndrome(syndrome::FLOW_TABLE_IS_DESTINATION);
            }
            EmptyCriteria => {
                let refusal = bad_parameter("the flow group enables outer headers without criteria");
                return refusal.with_syndrome(syndrome::EMPTY_CRITERIA);
            }
            DisabledCriteria => {
                let refusal = bad_parameter("the flow group has criteria in inner headers without enabling them");
                return refusal.with_syndrome(syndrome::DISABLED_CRITERIA);
            }
            Exists(_) => (Status::BadIndex, "there is such a flow table entry already"),
            BadRange { .. } => (Status::BadIndex, "the flow group cannot have these indexes"),
            OutsideGroup(_) => (Status::BadIndex, "the flow table entry is outside of its group"),
            Level { .. } => {
                let refusal = bad_parameter("a flow table forwards only to higher levels");
                return refusal.with_syndrome(syndrome::FLOW_TABLE_LEVEL);
            }
            NoAction => {
                let refusal = bad_parameter("the flow table entry neither allows, drops nor forwards");
                return refusal.with_syndrome(syndrome::NO_ACTION);
            }
            BadAction(_) => (Status::BadParameter, "the flow table entry's actions are not possible"),
            BadList => (
                Status::BadParameter,
                "the flow table entry's lists do not fit its actions",
            ),
            TooLarge(_) => (Status::BadParameter, "the flow table is too large"),
            Full => (
                Status::LimitExceeded,
                "there are no more flow tables, groups, entries or counters",
            ),
            OverBudget(_) => return OVER_BUDGET,
        };
        Self::new(status, reason)
    }
}

fn miss(context: &FlowTableContext) -> Result<Miss> {
    match context.table_miss_action() {
        MISS_DEFAULT => Ok(Miss::Default),
        MISS_FORWARD => Ok(Miss::Table(context.table_miss_id())),
        _ => Err(bad_parameter("there is no such way to miss")),
    }
}

fn create_table(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<CreateFlowTableIn>()?;
    let context = input.flow_table_context();
    let table = NewTable {
        table_type: input.table_type(),
        level: context.level(),
        log_size: context.log_size(),
        miss: miss(context)?,
    };
    let mut output = CreateFlowTableOut::default();
    output.set_table_id(firmware.hca.steering.create_table(table)?);
    Reply::new(output)
}

fn modify_table(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ModifyFlowTableIn>()?;
    if input.modify_field_select() & MODIFY_MISS_TABLE != 0 {
        let miss = miss(input.flow_table_context())?;
        firmware
            .hca
            .steering
            .modify_table(input.table_type(), input.table_id(), miss)?;
    }
    Reply::ok::<ModifyFlowTableOut>()
}

fn destroy_table(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<DestroyFlowTableIn>()?;
    firmware
        .hca
        .steering
        .destroy_table(input.table_type(), input.table_id())?;
    Reply::ok::<DestroyFlowTableOut>()
}

fn set_root(firmware: &Firmware, input: Input<'_>) -> Result {
    let op_mod = input.op_mod();
    let input = input.fields::<SetFlowTableRootIn>()?;
    let table = match op_mod {
        ROOT_SET => Some(input.table_id()),
        ROOT_RESET => None,
        _ => return Err(bad_parameter("a root is set or reset")),
    };
    firmware.hca.steering.set_root(input.table_type(), table)?;
    Reply::ok::<SetFlowTableRootOut>()
}

fn create_group(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<CreateFlowGroupIn>()?;
    let group = NewGroup {
        table_type: input.table_type(),
        table: input.table_id(),
        start: input.start_flow_index(),
        end: input.end_flow_index(),
        criteria_enable: input.match_criteria_enable(),
        criteria: input.match_criteria(),
    };
    let mut output = CreateFlowGroupOut::default();
    output.set_group_id(firmware.hca.steering.create_group(group)?);
    Reply::new(output)
}

fn destroy_group(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<DestroyFlowGroupIn>()?;
    firmware
        .hca
        .steering
        .destroy_group(input.table_type(), input.table_id(), input.group_id())?;
    Reply::ok::<DestroyFlowGroupOut>()
}

/// Parses the lists behind the context: destinations, then counters, 8 bytes each.
fn actions(hca: &Hca, input: &SetFteIn, list: &[u8]) -> Result<Actions<Arc<Tir>>> {
    let context = input.flow_context();
    if context.extended_destination() {
        return Err(bad_parameter("extended destinations are not supported"));
    }
    let (destinations, counters) = (
        context.destination_list_size() as usize,
        context.flow_counter_list_size() as usize,
    );
    let short = bad_parameter("the list of destinations is shorter than it says");
    let entries = list
        .as_chunks::<8>()
        .0
        .get(..destinations.saturating_add(counters))
        .ok_or(short)?;
    let (destinations, counters) = entries.split_at(destinations);
    let mut actions = Actions {
        action: context.action(),
        flow_tag: context.flow_tag(),
        ignore_level: input.ignore_flow_level(),
        ..Actions::default()
    };
    for entry in destinations {
        let entry = DestFormatStruct::read_from_bytes(entry).map_err(|_| short)?;
        let id = entry.destination_id();
        actions.destinations.push(match entry.destination_type() {
            DESTINATION_TABLE => Destination::Table(id),
            DESTINATION_TIR => {
                let tir = hca.tirs.get(id).ok_or(no_such("a destination's TIR does not exist"))?;
                actions.held.push(tir.references.acquire());
                Destination::Tir(tir)
            }
            kind => {
                let refusal = bad_parameter("there is no such kind of destination");
                return Err(match (input.table_type(), kind) {
                    (table_type::NIC_TX, DESTINATION_VPORT) => refusal.with_syndrome(syndrome::SENT_TO_VPORT),
                    (table_type::NIC_TX, DESTINATION_UPLINK) => refusal.with_syndrome(syndrome::SENT_TO_UPLINK),
                    _ => refusal,
                });
            }
        });
    }
    // Each is a counter id and four reserved bytes (`flow_counter_list`).
    actions.counters = counters
        .iter()
        .map(|[a, b, c, d, ..]| u32::from_be_bytes([*a, *b, *c, *d]))
        .collect();
    Ok(actions)
}

fn set_entry(firmware: &Firmware, input: Input<'_>) -> Result {
    let op_mod = input.op_mod();
    let (input, list) = input.with_tail::<SetFteIn>()?;
    let steering = &firmware.hca.steering;
    let actions = actions(&firmware.hca, input, list)?;
    let (table_type, table, index) = (input.table_type(), input.table_id(), input.flow_index());
    match op_mod {
        ENTRY_NEW => steering.create_entry(NewEntry {
            table_type,
            table,
            group: input.flow_context().group_id(),
            index,
            value: input.flow_context().match_value(),
            actions,
        })?,
        ENTRY_MODIFY => steering.modify_entry(table_type, table, index, input.modify_enable_mask(), actions)?,
        _ => return Err(bad_parameter("an entry is new or modified")),
    }
    Reply::ok::<SetFteOut>()
}

fn delete_entry(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<DeleteFteIn>()?;
    firmware
        .hca
        .steering
        .delete_entry(input.table_type(), input.table_id(), input.flow_index())?;
    Reply::ok::<DeleteFteOut>()
}

fn alloc_counter(firmware: &Firmware, input: Input<'_>) -> Result {
    let bulk = input.fields::<AllocFlowCounterIn>()?.flow_counter_bulk();
    let count = (u32::from(bulk) * BULK_UNIT).max(1);
    let mut output = AllocFlowCounterOut::default();
    output.set_flow_counter_id(firmware.hca.steering.alloc_counters(count)?);
    Reply::new(output)
}

fn dealloc_counter(firmware: &Firmware, input: Input<'_>) -> Result {
    firmware
        .hca
        .steering
        .dealloc_counters(input.fields::<DeallocFlowCounterIn>()?.flow_counter_id())?;
    Reply::ok::<DeallocFlowCounterOut>()
}

fn query_counter(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<QueryFlowCounterIn>()?;
    let count = u32::from(input.num_of_counters()).max(1);
    let counts = firmware
        .hca
        .steering
        .query_counters(input.flow_counter_id(), count, input.clear())?;
    let list: Vec<u8> = counts
        .into_iter()
        .flat_map(|traffic| {
            let mut counter = TrafficCounter::default();
            counter.set_packets(traffic.packets);
            counter.set_octets(traffic.octets);
            counter.as_bytes().to_vec()
        })
        .collect();
    Reply::with_tail(QueryFlowCounterOut::default(), &list)
}
