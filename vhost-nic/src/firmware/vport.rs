//! Commands on the virtual port: context and state, RoCE addresses, L2 table.

use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::*;

use super::command::{Commands, Input, Reply, Result, bad_parameter};
use super::{Firmware, syndrome};
use crate::frame::mac::Mac;
use crate::hca::vport::{ROCE_ADDRESSES, roce_version};

pub(super) const COMMANDS: Commands = &[
    (Opcode::QUERY_NIC_VPORT_CONTEXT, query_nic_vport_context),
    (Opcode::MODIFY_NIC_VPORT_CONTEXT, modify_nic_vport_context),
    (Opcode::QUERY_VPORT_STATE, query_vport_state),
    (Opcode::MODIFY_VPORT_STATE, modify_vport_state),
    (Opcode::SET_ROCE_ADDRESS, set_roce_address),
    (Opcode::QUERY_ROCE_ADDRESS, query_roce_address),
    (Opcode::QUERY_HCA_VPORT_PKEY, query_hca_vport_pkey),
    (Opcode::QUERY_HCA_VPORT_CONTEXT, query_hca_vport_context),
    (Opcode::SET_L2_TABLE_ENTRY, set_l2_table_entry),
    (Opcode::DELETE_L2_TABLE_ENTRY, delete_l2_table_entry),
];

/// Lists of addresses (`MLX5_NVPRT_LIST_TYPE_*`, device.h).
const LIST_UNICAST: u8 = 0;
const LIST_MULTICAST: u8 = 1;
const LIST_VLAN: u8 = 2;
/// Bytes of a list entry.
const LIST_ENTRY: usize = 8;
/// The only partition key: full membership of the default partition.
const DEFAULT_PKEY: u16 = 0xffff;
/// Size of the P_Key table: `pkey_table_size` 0 encodes 128.
const PKEYS: usize = 128;
/// In QUERY_VPORT_STATE (`VPORT_STATE_*`, `MLX5_VPORT_ADMIN_STATE_*`, vport.h).
const STATE_UP: u8 = 1;
/// Group bit in the upper 16 bits of a MAC address.
const MULTICAST_MAC: u16 = 1 << 8;

fn to_layout(mac: Mac, layout: &mut MacAddressLayout) {
    let (high, low) = mac.halves();
    layout.set_mac_addr_47_32(high);
    layout.set_mac_addr_31_0(low);
}

fn from_layout(layout: &MacAddressLayout) -> Mac {
    Mac::from_halves(layout.mac_addr_47_32(), layout.mac_addr_31_0())
}

fn query_nic_vport_context(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<QueryNicVportContextIn>()?;
    let vport = firmware.hca.vport.read();
    let mut output = QueryNicVportContextOut::default();
    let context = output.nic_vport_context_mut();
    *context = vport.context.clone();
    to_layout(vport.permanent, context.permanent_address_mut());
    let guid = vport.guid();
    context.set_system_image_guid(guid);
    context.set_port_guid(guid);
    context.set_node_guid(guid);
    let macs = |list: &[Mac]| -> Vec<u8> { list.iter().flat_map(|mac| [&[0; 2][..], &mac.0].concat()).collect() };
    let list = match input.allowed_list_type() {
        LIST_UNICAST => macs(&vport.unicast),
        LIST_MULTICAST => macs(&vport.multicast),
        LIST_VLAN => vport
            .vlans
            .iter()
            .flat_map(|&vlan| (u64::from(vlan) << 32).to_be_bytes())
            .collect(),
        _ => return Err(bad_parameter("unknown list of addresses")),
    };
    context.set_allowed_list_type(input.allowed_list_type());
    context.set_allowed_list_size((list.len() / LIST_ENTRY) as u16);
    Reply::with_tail(output, &list)
}

fn modify_nic_vport_context(firmware: &Firmware, input: Input<'_>) -> Result {
    let (input, list) = input.with_tail::<ModifyNicVportContextIn>()?;
    let (select, new) = (input.field_select(), input.nic_vport_context());
    let vport = &mut *firmware.hca.vport.write();
    if select.addresses_list() {
        let entries = list
            .as_chunks::<LIST_ENTRY>()
            .0
            .get(..new.allowed_list_size().into())
            .ok_or(bad_parameter("the list of addresses is shorter than its count"))?;
        let macs = || entries.iter().map(|[_, _, mac @ ..]| Mac(*mac)).collect();
        match new.allowed_list_type() {
            LIST_UNICAST => vport.unicast = macs(),
            LIST_MULTICAST => vport.multicast = macs(),
            LIST_VLAN => {
                vport.vlans = entries
                    .iter()
                    .map(|entry| u16::from_be_bytes([entry[2], entry[3]]) & 0xfff)
                    .collect();
            }
            _ => return Err(bad_parameter("unknown list of addresses")),
        }
    }
    let context = &mut vport.context;
    if select.disable_uc_local_lb() {
        context.set_disable_uc_local_lb(new.disable_uc_local_lb());
    }
    if select.disable_mc_local_lb() {
        context.set_disable_mc_local_lb(new.disable_mc_local_lb());
    }
    if select.min_inline() {
        context.set_min_wqe_inline_mode(new.min_wqe_inline_mode());
    }
    if select.mtu() {
        context.set_mtu(new.mtu());
    }
    if select.change_event() {
        context.set_arm_change_event(new.arm_change_event());
        context.set_event_on_mtu(new.event_on_mtu());
        context.set_event_on_promisc_change(new.event_on_promisc_change());
        context.set_event_on_vlan_change(new.event_on_vlan_change());
        context.set_event_on_mc_address_change(new.event_on_mc_address_change());
        context.set_event_on_uc_address_change(new.event_on_uc_address_change());
    }
    if select.promisc() {
        context.set_promisc_uc(new.promisc_uc());
        context.set_promisc_mc(new.promisc_mc());
        context.set_promisc_all(new.promisc_all());
    }
    if select.roce_en() {
        context.set_roce_en(new.roce_en());
    }
    if select.permanent_address() {
        vport.permanent = from_layout(new.permanent_address());
    }
    Reply::ok::<ModifyNicVportContextOut>()
}

fn query_vport_state(firmware: &Firmware, _: Input<'_>) -> Result {
    let mut output = QueryVportStateOut::default();
    let state = if firmware.hca.port.link_up() { STATE_UP } else { 0 };
    output.set_admin_state(STATE_UP);
    output.set_state(state);
    Reply::new(output)
}

/// The vport follows the port, which the function shares with no other.
fn modify_vport_state(_: &Firmware, _: Input<'_>) -> Result {
    Reply::ok::<ModifyVportStateOut>()
}

fn set_roce_address(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<SetRoceAddressIn>()?;
    let address = input.roce_address();
    // An entry of zeros removes an address.
    let empty = address.source_l3_address().iter().all(|byte| *byte == 0);
    if address.source_mac_47_32() & MULTICAST_MAC != 0 {
        return Err(
            bad_parameter("the source address is a multicast address").with_syndrome(syndrome::MULTICAST_SOURCE_MAC)
        );
    }
    if !matches!(address.roce_version(), roce_version::V1 | roce_version::V2) && !empty {
        return Err(bad_parameter("the RoCE version is unknown").with_syndrome(syndrome::ROCE_VERSION));
    }
    let mut vport = firmware.hca.vport.write();
    let entry = vport
        .roce_addresses
        .get_mut(usize::from(input.roce_address_index()))
        .ok_or(bad_parameter("the index is beyond the RoCE address table"))?;
    *entry = address.clone();
    Reply::ok::<SetRoceAddressOut>()
}

fn query_roce_address(firmware: &Firmware, input: Input<'_>) -> Result {
    let index = usize::from(input.fields::<QueryRoceAddressIn>()?.roce_address_index());
    let vport = firmware.hca.vport.read();
    let mut output = QueryRoceAddressOut::default();
    debug_assert_eq!(vport.roce_addresses.len(), ROCE_ADDRESSES);
    *output.roce_address_mut() = vport
        .roce_addresses
        .get(index)
        .cloned()
        .ok_or(bad_parameter("the index is beyond the RoCE address table"))?;
    Reply::new(output)
}

/// An index beyond the table queries the whole table.
fn query_hca_vport_pkey(_: &Firmware, input: Input<'_>) -> Result {
    let index = usize::from(input.fields::<QueryHcaVportPkeyIn>()?.pkey_index());
    let count = if index < PKEYS { 1 } else { PKEYS };
    let list: Vec<u8> = (0..count).flat_map(|_| u32::from(DEFAULT_PKEY).to_be_bytes()).collect();
    Reply::with_tail(QueryHcaVportPkeyOut::default(), &list)
}

fn query_hca_vport_context(firmware: &Firmware, _: Input<'_>) -> Result {
    let guid = firmware.hca.vport.read().guid();
    let mut output = QueryHcaVportContextOut::default();
    let context = output.hca_vport_context_mut();
    context.set_system_image_guid(guid);
    context.set_port_guid(guid);
    context.set_node_guid(guid);
    context.set_port_state(if firmware.hca.port.link_up() { 4 } else { 1 });
    context.set_vport_state(if firmware.hca.port.link_up() { 4 } else { 1 });
    Reply::new(output)
}

/// The L2 table gives addresses to a multi-host switch; the switch of this device learns them.
fn set_l2_table_entry(_: &Firmware, input: Input<'_>) -> Result {
    input.fields::<SetL2TableEntryIn>()?;
    Reply::ok::<SetL2TableEntryOut>()
}

fn delete_l2_table_entry(_: &Firmware, input: Input<'_>) -> Result {
    input.fields::<DeleteL2TableEntryIn>()?;
    Reply::ok::<DeleteL2TableEntryOut>()
}
