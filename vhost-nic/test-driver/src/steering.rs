//! Flow tables (`core/fs_cmd.c`) of a network driver (`core/en_fs.c`, `core/lib/fs_ttc.c`).

use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::steering::*;
use zerocopy::IntoBytes;

use crate::command::Result;
use crate::hca::Hca;

/// `FS_FT_NIC_RX`.
pub const NIC_RX: u8 = 0;
/// `MLX5_MATCH_OUTER_HEADERS`.
pub const MATCH_OUTER: u8 = 1;
/// `MLX5_FLOW_CONTEXT_ACTION_*`.
pub mod action {
    /// ALLOW: continue.
    pub const ALLOW: u16 = 1;
    /// DROP.
    pub const DROP: u16 = 1 << 1;
    /// FWD_DEST: forward to the destinations.
    pub const FORWARD: u16 = 1 << 2;
    /// COUNT.
    pub const COUNT: u16 = 1 << 3;
}
/// Types of destinations (`MLX5_IFC_FLOW_DESTINATION_TYPE_*`).
const TO_TABLE: u8 = 1;
const TO_TIR: u8 = 2;

/// Destination of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Another flow table.
    Table(u32),
    /// A TIR.
    Tir(u32),
}

/// A flow table for received frames (NIC_RX).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Table ID.
    pub id: u32,
}

/// A flow table entry (FTE).
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Flow group ID.
    pub group: u32,
    /// Flow index.
    pub index: u32,
    /// Match value.
    pub value: &'a FteMatchParam,
    /// Actions ([`action`]).
    pub action: u16,
    /// Destinations.
    pub to: &'a [To],
    /// Flow counter IDs.
    pub counters: &'a [u32],
    /// Flow tag, reported in completions.
    pub tag: u32,
}

impl Table {
    /// Creates a table of `1 << log_size` entries at a level.
    pub fn create(hca: &Hca, level: u8, log_size: u8) -> Result<Self> {
        let mut input = CreateFlowTableIn::default();
        input.set_table_type(NIC_RX);
        input.flow_table_context_mut().set_level(level);
        input.flow_table_context_mut().set_log_size(log_size);
        let output: CreateFlowTableOut = hca.commands.call(Opcode::CREATE_FLOW_TABLE, &input)?;
        Ok(Self { id: output.table_id() })
    }

    /// Makes the table the root of NIC_RX.
    pub fn set_root(self, hca: &Hca) -> Result<()> {
        let mut input = SetFlowTableRootIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(self.id);
        hca.commands
            .call::<_, SetFlowTableRootOut>(Opcode::SET_FLOW_TABLE_ROOT, &input)
            .map(drop)
    }

    /// Destroys the table.
    pub fn destroy(self, hca: &Hca) -> Result<()> {
        let mut input = DestroyFlowTableIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(self.id);
        hca.commands
            .call::<_, DestroyFlowTableOut>(Opcode::DESTROY_FLOW_TABLE, &input)
            .map(drop)
    }

    /// Creates a group of entries with match criteria on outer headers. Returns its ID.
    pub fn create_group(
        self,
        hca: &Hca,
        entries: std::ops::RangeInclusive<u32>,
        criteria: &FteMatchParam,
    ) -> Result<u32> {
        let mut input = CreateFlowGroupIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(self.id);
        input.set_start_flow_index(*entries.start());
        input.set_end_flow_index(*entries.end());
        let anything = criteria.as_bytes().iter().any(|&byte| byte != 0);
        input.set_match_criteria_enable(if anything { MATCH_OUTER } else { 0 });
        *input.match_criteria_mut() = criteria.clone();
        let output: CreateFlowGroupOut = hca.commands.call(Opcode::CREATE_FLOW_GROUP, &input)?;
        Ok(output.group_id())
    }

    /// Destroys a group.
    pub fn destroy_group(self, hca: &Hca, group: u32) -> Result<()> {
        let mut input = DestroyFlowGroupIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(self.id);
        input.set_group_id(group);
        hca.commands
            .call::<_, DestroyFlowGroupOut>(Opcode::DESTROY_FLOW_GROUP, &input)
            .map(drop)
    }

    /// Sets an entry.
    pub fn set(self, hca: &Hca, entry: &Entry<'_>) -> Result<()> {
        let mut input = SetFteIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(self.id);
        input.set_flow_index(entry.index);
        let context = input.flow_context_mut();
        context.set_group_id(entry.group);
        context.set_flow_tag(entry.tag);
        context.set_action(entry.action);
        context.set_destination_list_size(entry.to.len() as u32);
        context.set_flow_counter_list_size(entry.counters.len() as u32);
        *context.match_value_mut() = entry.value.clone();
        let mut list = Vec::new();
        for to in entry.to {
            let mut destination = DestFormatStruct::default();
            let (kind, id) = match *to {
                To::Table(id) => (TO_TABLE, id),
                To::Tir(id) => (TO_TIR, id),
            };
            destination.set_destination_type(kind);
            destination.set_destination_id(id);
            list.extend_from_slice(destination.as_bytes());
        }
        for counter in entry.counters {
            list.extend_from_slice(&counter.to_be_bytes());
            list.extend_from_slice(&[0; 4]);
        }
        hca.commands
            .call_with::<_, SetFteOut>(Opcode::SET_FLOW_TABLE_ENTRY, 0, &input, &list, 0)
            .map(drop)
    }

    /// Sets an entry with one destination.
    pub fn forward(self, hca: &Hca, group: u32, index: u32, value: &FteMatchParam, to: To) -> Result<()> {
        self.set(
            hca,
            &Entry {
                group,
                index,
                value,
                action: action::FORWARD,
                to: &[to],
                counters: &[],
                tag: 0,
            },
        )
    }

    /// Deletes an entry.
    pub fn delete(self, hca: &Hca, index: u32) -> Result<()> {
        let mut input = DeleteFteIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(self.id);
        input.set_flow_index(index);
        hca.commands
            .call::<_, DeleteFteOut>(Opcode::DELETE_FLOW_TABLE_ENTRY, &input)
            .map(drop)
    }
}

/// Allocates a flow counter.
pub fn alloc_counter(hca: &Hca) -> Result<u32> {
    let input = AllocFlowCounterIn::default();
    hca.commands
        .call(Opcode::ALLOC_FLOW_COUNTER, &input)
        .map(|output: AllocFlowCounterOut| output.flow_counter_id())
}

/// Frees a flow counter.
pub fn dealloc_counter(hca: &Hca, id: u32) -> Result<()> {
    let mut input = DeallocFlowCounterIn::default();
    input.set_flow_counter_id(id);
    hca.commands
        .call::<_, DeallocFlowCounterOut>(Opcode::DEALLOC_FLOW_COUNTER, &input)
        .map(drop)
}

/// Queries packets and bytes of a flow counter.
pub fn query_counter(hca: &Hca, id: u32) -> Result<(u64, u64)> {
    let mut input = QueryFlowCounterIn::default();
    input.set_flow_counter_id(id);
    let (_, list): (QueryFlowCounterOut, _) =
        hca.commands
            .call_with(Opcode::QUERY_FLOW_COUNTER, 0, &input, &[], TrafficCounter::SIZE)?;
    let counter: &TrafficCounter = zerocopy::FromBytes::ref_from_bytes(&list).unwrap();
    Ok((counter.packets(), counter.octets()))
}

/// Match criteria or value of outer headers.
pub fn outer(fill: impl FnOnce(&mut FteMatchSetLyr24)) -> FteMatchParam {
    let mut fields = FteMatchParam::default();
    fill(fields.outer_headers_mut());
    fields
}

/// Match criteria or value of the destination MAC address.
pub fn destination(mac: [u8; 6]) -> FteMatchParam {
    let [a, b, c, d, e, f] = mac;
    outer(|headers| {
        headers.set_dmac_47_16(u32::from_be_bytes([a, b, c, d]));
        headers.set_dmac_15_0(u16::from_be_bytes([e, f]));
    })
}
