//! Commands on queue counter sets and vport counters.

use std::sync::atomic::Ordering;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::steering::TrafficCounter;
use mlx5_prm::vnic_env::*;
use mlx5_prm::vport::*;

use super::Firmware;
use super::command::{Commands, Input, Reply, Result, TABLE_FULL, bad_parameter, no_object};
use crate::frame::mac::CastType;
use crate::hca::port_counters::Traffic;
use crate::hca::queue_counter::{QueueCounter, QueueCounters};

pub(super) const COMMANDS: Commands = &[
    (Opcode::ALLOC_Q_COUNTER, alloc_queue_counters),
    (Opcode::DEALLOC_Q_COUNTER, dealloc_queue_counters),
    (Opcode::QUERY_Q_COUNTER, query_queue_counters),
    (Opcode::QUERY_VPORT_COUNTER, query_vport_counters),
    (Opcode::QUERY_VNIC_ENV, query_vnic_env),
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
        .ok_or(no_object("no such queue counter set"))?;
    Reply::ok::<DeallocQCounterOut>()
}

fn query_queue_counters(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<QueryQCounterIn>()?;
    let counters = firmware
        .hca
        .queue_counters
        .get(input.counter_set_id().into())
        .ok_or(no_object("no such queue counter set"))?;
    let mut output = QueryQCounterOut::default();
    macro_rules! counts {
        ($($field:ident),* $(,)?) => {
            pastey::paste! {
                $(output.[<set_ $field>](counters.get(QueueCounter::[<$field:camel>], input.clear()));)*
            }
        };
    }
    counts!(
        rx_write_requests,
        rx_read_requests,
        rx_atomic_requests,
        out_of_buffer,
        out_of_sequence,
        duplicate_request,
        rnr_nak_retry_err,
        packet_seq_err,
        implied_nak_seq_err,
        local_ack_timeout_err,
        req_rnr_retries_exceeded,
        resp_local_length_error,
        req_local_length_error,
        local_operation_error,
        resp_local_protection,
        req_local_protection,
        resp_cqe_error,
        req_cqe_error,
        req_mw_binding,
        req_bad_response,
        req_remote_invalid_request,
        resp_remote_invalid_request,
        req_remote_access_errors,
        resp_remote_access_errors,
        req_remote_operation_errors,
        req_transport_retries_exceeded,
        resp_cqe_flush_error,
        req_cqe_flush_error,
    );
    Reply::new(output)
}

fn query_vport_counters(firmware: &Firmware, input: Input<'_>) -> Result {
    let clear = input.fields::<QueryVportCounterIn>()?.clear();
    let counters = &firmware.hca.port_counters;
    let mut output = QueryVportCounterOut::default();
    let fill = |to: &mut TrafficCounter, (packets, octets): (u64, u64)| {
        to.set_packets(packets);
        to.set_octets(octets);
    };
    let (received, sent) = (&counters.received, &counters.sent);
    let (rdma_received, rdma_sent) = (&counters.rdma_received, &counters.rdma_sent);
    // Ethernet counters of a vport exclude RoCE packets; those of the physical port include them.
    let rest = |all: &Traffic, rdma: &Traffic| {
        let ((packets, octets), (less, fewer)) = (all.get(), rdma.get());
        (packets.saturating_sub(less), octets.saturating_sub(fewer))
    };
    fill(
        output.received_eth_unicast_mut(),
        rest(received.of(CastType::Unicast), &rdma_received.unicast),
    );
    fill(
        output.received_eth_multicast_mut(),
        rest(received.of(CastType::Multicast), &rdma_received.multicast),
    );
    fill(
        output.received_eth_broadcast_mut(),
        received.of(CastType::Broadcast).get(),
    );
    fill(
        output.transmitted_eth_unicast_mut(),
        rest(sent.of(CastType::Unicast), &rdma_sent.unicast),
    );
    fill(
        output.transmitted_eth_multicast_mut(),
        rest(sent.of(CastType::Multicast), &rdma_sent.multicast),
    );
    fill(
        output.transmitted_eth_broadcast_mut(),
        sent.of(CastType::Broadcast).get(),
    );
    fill(output.received_ib_unicast_mut(), rdma_received.unicast.get());
    fill(output.received_ib_multicast_mut(), rdma_received.multicast.get());
    fill(output.transmitted_ib_unicast_mut(), rdma_sent.unicast.get());
    fill(output.transmitted_ib_multicast_mut(), rdma_sent.multicast.get());
    fill(output.local_loopback_mut(), counters.loopback.get());
    output
        .transmit_errors_mut()
        .set_packets(counters.send_errors.load(Ordering::Relaxed));
    if clear {
        received.clear();
        sent.clear();
        rdma_received.clear();
        rdma_sent.clear();
        counters.loopback.clear();
    }
    Reply::new(output)
}

fn query_vnic_env(firmware: &Firmware, input: Input<'_>) -> Result {
    if input.fields::<QueryVnicEnvIn>()?.other_vport() {
        return Err(bad_parameter("the function has no other vport"));
    }
    let hca = &firmware.hca;
    let mut output = QueryVnicEnvOut::default();
    let counters = output.vport_env_mut();
    counters.set_nic_receive_steering_discard(hca.port_counters.unmatched.load(Ordering::Relaxed));
    counters.set_cq_overrun(hca.completion_counters.overruns.load(Ordering::Relaxed));
    counters.set_invalid_command(firmware.refused.load(Ordering::Relaxed));
    counters.set_quota_exceeded_command(firmware.over_quota.load(Ordering::Relaxed));
    Reply::new(output)
}
