//! Commands on counters.

use std::sync::atomic::Ordering;

use mlx5_prm::flow::TrafficCounter;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::*;

use super::Firmware;
use super::command::{Commands, Input, Reply, Result, TABLE_FULL, no_such};
use crate::hca::counter::{Cast, QueueCounters, Traffic};

pub(super) const COMMANDS: Commands = &[
    (Opcode::ALLOC_Q_COUNTER, alloc_queue_counters),
    (Opcode::DEALLOC_Q_COUNTER, dealloc_queue_counters),
    (Opcode::QUERY_Q_COUNTER, query_queue_counters),
    (Opcode::QUERY_VPORT_COUNTER, query_vport_counters),
];

fn alloc_queue_counters(firmware: &Firmware, _: Input<'_>) -> Result {
    let make = |number| QueueCounters::new(number as u8);
    let counters = firmware.hca.queue_counters.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = AllocQCounterOut::default();
    output.set_counter_set_id(counters.id);
    Reply::new(output)
}

fn dealloc_queue_counters(firmware: &Firmware, input: Input<'_>) -> Result {
    let id = input.fields::<DeallocQCounterIn>()?.counter_set_id();
    firmware
        .hca
        .queue_counters
        .remove(id.into())
        .ok_or(no_such("there is no such set of counters"))?;
    Reply::ok::<DeallocQCounterOut>()
}

fn query_queue_counters(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<QueryQCounterIn>()?;
    let counters = firmware
        .hca
        .queue_counters
        .get(input.counter_set_id().into())
        .ok_or(no_such("there is no such set of counters"))?;
    let mut output = QueryQCounterOut::default();
    output.set_out_of_buffer(counters.out_of_buffer.load(Ordering::Relaxed));
    if input.clear() {
        counters.out_of_buffer.store(0, Ordering::Relaxed);
    }
    Reply::new(output)
}

fn query_vport_counters(firmware: &Firmware, input: Input<'_>) -> Result {
    let clear = input.fields::<QueryVportCounterIn>()?.clear();
    let counters = &firmware.hca.port_counters;
    let mut output = QueryVportCounterOut::default();
    let fill = |to: &mut TrafficCounter, from: &Traffic| {
        let (packets, octets) = from.get();
        to.set_packets(packets);
        to.set_octets(octets);
    };
    let (received, sent) = (&counters.received, &counters.sent);
    fill(output.received_eth_unicast_mut(), received.of(Cast::Unicast));
    fill(output.received_eth_multicast_mut(), received.of(Cast::Multicast));
    fill(output.received_eth_broadcast_mut(), received.of(Cast::Broadcast));
    fill(output.transmitted_eth_unicast_mut(), sent.of(Cast::Unicast));
    fill(output.transmitted_eth_multicast_mut(), sent.of(Cast::Multicast));
    fill(output.transmitted_eth_broadcast_mut(), sent.of(Cast::Broadcast));
    fill(output.local_loopback_mut(), &counters.loopback);
    output
        .transmit_errors_mut()
        .set_packets(counters.send_errors.load(Ordering::Relaxed));
    if clear {
        received.clear();
        sent.clear();
        counters.loopback.clear();
    }
    Reply::new(output)
}
