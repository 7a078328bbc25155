//! What the data path needs to know of a queue pair's context.

use std::sync::Arc;

use mlx5_prm::qp::{Ads, Qpc};
use serde::Serialize;

use super::QpState;
use crate::frame::mac::Mac;
use crate::hca::queue_counter::{QueueCounter, QueueCounters};
use crate::hca::vport::Vport;
use crate::roce::gid::Gid;
use crate::roce::path::{Addresses, Path, Vlan};
use crate::roce::rnr::RnrTimer;

/// The context of a queue pair, taken apart; replaced as a whole when the context changes.
#[derive(Debug, Clone, Serialize)]
pub struct Parameters {
    /// What the queue pair does.
    pub state: QpState,
    /// The service.
    pub service: u8,
    /// The protection domain.
    pub pd: u32,
    /// Most bytes of payload in a packet.
    pub mtu: usize,
    /// The other queue pair of a connection.
    pub remote_qpn: u32,
    /// The way to it, if it has one.
    #[serde(skip)]
    pub path: Option<Path>,
    /// Whether the other side may read.
    pub remote_read: bool,
    /// Whether the other side may write.
    pub remote_write: bool,
    /// Whether the other side may do atomic operations.
    pub remote_atomic: bool,
    /// Reads and atomics under way, most.
    pub max_requests: usize,
    /// Reads and atomics answered, most.
    pub max_resources: usize,
    /// How long the other side is to wait when no receive is posted.
    #[serde(skip)]
    pub rnr_timer: RnrTimer,
    /// An acknowledgement is asked for after so many packets, if not before (`log_ack_req_freq`).
    pub acknowledge_every: u32,
    /// How often to send again without an answer.
    pub retry_count: u8,
    /// How often to send again to a side without receives; 7 is for ever.
    pub rnr_retry: u8,
    /// How long to wait for an answer: 4.096 us times two to this; 0 is for ever.
    pub ack_timeout: u8,
    /// The key of datagrams.
    pub q_key: u32,
    /// How completions name it.
    pub user_index: u32,
    /// Most bytes in the completion of a read or atomic.
    pub requester_inline: usize,
    /// Most bytes in the completion of a receive.
    pub responder_inline: usize,
    /// Whether it may use the reserved key.
    pub reserved_lkey: bool,
    /// Whether it may fill keys with lists of pages.
    pub fast_register: bool,
    /// Number that datagrams say they come from, if it is not its own.
    pub deth_sqpn: u32,
    /// Whether it does not want its own multicasts.
    pub block_multicast_loopback: bool,
    /// Where it counts, if anywhere.
    #[serde(skip)]
    pub counters: Option<Arc<QueueCounters>>,
}

/// Bytes that go into a completion, by the context's code (`MLX5_QPC_CS_REQ_*`, `MLX5_QPC_CS_RES_*`).
fn inline(code: u8) -> usize {
    match code & 0xf {
        1 => 32,
        2 => 64,
        _ => 0,
    }
}

impl Parameters {
    /// How many packets a message of so many bytes takes.
    pub fn packets(&self, length: usize) -> u32 {
        // Most take one, and a division takes its time. No message has 2^32 bytes.
        if length <= self.mtu {
            1
        } else {
            length.div_ceil(self.mtu) as u32
        }
    }

    /// Counts one.
    pub fn count(&self, what: QueueCounter) {
        if let Some(counters) = &self.counters {
            counters.count(what);
        }
    }

    pub(super) fn new(state: QpState, context: &Qpc, vport: &Vport, counters: Option<Arc<QueueCounters>>) -> Self {
        Self {
            state,
            service: context.st(),
            pd: context.pd(),
            mtu: 128 << context.mtu().clamp(1, 5),
            remote_qpn: context.remote_qpn(),
            path: path(context.primary_address_path(), vport),
            remote_read: context.rre(),
            remote_write: context.rwe(),
            remote_atomic: context.rae(),
            max_requests: 1 << context.log_sra_max(),
            max_resources: 1 << context.log_rra_max(),
            rnr_timer: RnrTimer::new(context.min_rnr_nak()),
            acknowledge_every: 1 << context.log_ack_req_freq(),
            retry_count: context.retry_count(),
            rnr_retry: context.rnr_retry(),
            ack_timeout: context.primary_address_path().ack_timeout(),
            q_key: context.q_key(),
            user_index: context.user_index(),
            requester_inline: inline(context.cs_req()),
            responder_inline: inline(context.cs_res()),
            reserved_lkey: context.rlky(),
            fast_register: context.fre(),
            deth_sqpn: context.deth_sqpn(),
            block_multicast_loopback: context.block_lb_mc(),
            counters,
        }
    }
}

/// The way that an address path of the context describes.
fn path(ads: &Ads, vport: &Vport) -> Option<Path> {
    let source = vport.roce_source(ads.src_addr_index())?;
    Some(Path {
        source_mac: source.mac,
        destination_mac: Mac::from_halves(ads.rmac_47_32(), ads.rmac_31_0()),
        vlan: source.vlan.map(|id| Vlan {
            id,
            priority: ads.eth_prio(),
        }),
        addresses: Addresses::new(source.gid, Gid(*ads.rgid_rip())),
        udp_source_port: ads.udp_sport(),
        traffic_class: ads.dscp() << 2 | ads.ecn(),
        hop_limit: ads.hop_limit(),
        flow_label: ads.flow_label(),
    })
}
