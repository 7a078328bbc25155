//! PPCNT: counters of the port.

use std::sync::atomic::Ordering;

use mlx5_prm::port_counters::*;
use zerocopy::{FromBytes, IntoBytes};

use super::{PORT, register};
use crate::firmware::command::{Result, bad_parameter};
use crate::firmware::syndrome;
use crate::frame::mac::CastType;
use crate::hca::Hca;
use crate::hca::port_counters::Direction;

/// Groups of port counters (`MLX5_*_COUNTERS_GROUP`, device.h).
mod group {
    pub(super) const IEEE_802_3: u8 = 0x0;
    pub(super) const RFC_2863: u8 = 0x1;
    pub(super) const RFC_2819: u8 = 0x2;
    pub(super) const PRIORITY: u8 = 0x10;
    pub(super) const PHYSICAL_LAYER: u8 = 0x12;
    pub(super) const PHYSICAL_LAYER_STATISTICS: u8 = 0x16;
}

/// Meaning of `pnat` with which the driver asks for the counters of traffic classes without a port
/// (`mlx5e_grp_per_tc_prio_update_stats`, core/en_stats.c).
const OWN_PORT: u8 = 2;

pub(super) fn ppcnt(hca: &Hca, data: &[u8]) -> Result<Vec<u8>> {
    let requested: PpcntReg = register(data);
    let own = (requested.pnat(), requested.local_port()) == (OWN_PORT, 0);
    if !own && requested.local_port() != PORT {
        return Err(bad_parameter("the function has no such port").with_syndrome(syndrome::COUNTERS_PORT));
    }
    let mut reply = PpcntReg::default();
    reply.set_local_port(PORT);
    reply.set_grp(requested.grp());
    reply.set_prio_tc(requested.prio_tc());
    let counters = &hca.port_counters;
    let (received, sent) = (&counters.received, &counters.sent);
    let packets = |direction: &Direction, cast: CastType| direction.of(cast).get().0;
    macro_rules! counts {
        ($to:ident: $($field:ident = $value:expr),* $(,)?) => {
            pastey::paste! { $(
                $to.[<set_ $field _high>](($value >> 32) as u32);
                $to.[<set_ $field _low>]($value as u32);
            )* }
        };
    }
    let set = &mut reply.counter_set_mut()[..];
    let discards: u64 = [&counters.out_of_buffer, &counters.not_ready, &counters.unmatched]
        .map(|counter| counter.load(Ordering::Relaxed))
        .into_iter()
        .sum();
    match requested.grp() {
        group::IEEE_802_3 => {
            let Ok(to) = Eth8023CntrsGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                a_frames_transmitted_ok = sent.total().0, a_frames_received_ok = received.total().0,
                a_octets_transmitted_ok = sent.total().1, a_octets_received_ok = received.total().1,
                a_multicast_frames_xmitted_ok = packets(sent, CastType::Multicast),
                a_broadcast_frames_xmitted_ok = packets(sent, CastType::Broadcast),
                a_multicast_frames_received_ok = packets(received, CastType::Multicast),
                a_broadcast_frames_received_ok = packets(received, CastType::Broadcast),
            );
        }
        group::RFC_2863 => {
            let Ok(to) = Eth2863CntrsGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                if_in_octets = received.total().1, if_in_ucast_pkts = packets(received, CastType::Unicast),
                if_in_discards = discards, if_out_octets = sent.total().1,
                if_out_ucast_pkts = packets(sent, CastType::Unicast),
                if_out_errors = counters.send_errors.load(Ordering::Relaxed),
                if_in_multicast_pkts = packets(received, CastType::Multicast),
                if_in_broadcast_pkts = packets(received, CastType::Broadcast),
                if_out_multicast_pkts = packets(sent, CastType::Multicast),
                if_out_broadcast_pkts = packets(sent, CastType::Broadcast),
            );
        }
        group::RFC_2819 => {
            let Ok(to) = Eth2819CntrsGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                ether_stats_octets = received.total().1, ether_stats_pkts = received.total().0,
                ether_stats_broadcast_pkts = packets(received, CastType::Broadcast),
                ether_stats_multicast_pkts = packets(received, CastType::Multicast),
                ether_stats_pkts64octets = received.size_class(0),
                ether_stats_pkts65to127octets = received.size_class(1),
                ether_stats_pkts128to255octets = received.size_class(2),
                ether_stats_pkts256to511octets = received.size_class(3),
                ether_stats_pkts512to1023octets = received.size_class(4),
                ether_stats_pkts1024to1518octets = received.size_class(5),
                ether_stats_pkts1519to2047octets = received.size_class(6),
                ether_stats_pkts2048to4095octets = received.size_class(7),
                ether_stats_pkts4096to8191octets = received.size_class(8),
                ether_stats_pkts8192to10239octets = received.size_class(9),
            );
        }
        group::PRIORITY => {
            let priority = requested.prio_tc().into();
            let (Some(received), Some(sent)) = (received.of_priority(priority), sent.of_priority(priority)) else {
                return Err(bad_parameter("there is no such priority"));
            };
            let Ok(to) = EthPerPrioGrpDataLayout::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            counts!(to:
                rx_octets = received.1, rx_frames = received.0, tx_octets = sent.1, tx_frames = sent.0,
            );
        }
        group::PHYSICAL_LAYER => {
            let Ok(to) = PhysLayerCntrs::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            to.set_link_down_events(hca.port.link_down_events());
        }
        group::PHYSICAL_LAYER_STATISTICS => {
            let Ok(to) = PhysLayerStatisticalCntrs::mut_from_bytes(set) else {
                return Ok(Vec::new());
            };
            // Frames with their frame check sequences. Symbols are never received with errors.
            let (frames, octets) = received.total();
            counts!(to: phy_received_bits = (octets + 4 * frames) * 8);
        }
        // Other groups count congestion, which this device does not have.
        _ => {}
    }
    Ok(reply.as_bytes().to_vec())
}
