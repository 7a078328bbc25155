//! The queue pair context (QPC), decoded for the data path.

use std::sync::Arc;

use mlx5_prm::qp::{Ads, Qpc};
use serde::Serialize;

use super::state::{QpState, service};
use crate::frame::mac::Mac;
use crate::hca::queue_counter::{QueueCounter, QueueCounters};
use crate::hca::vport::Vport;
use crate::roce::gid::Gid;
use crate::roce::opcode::Transport;
use crate::roce::path::{Path, Vlan};
use crate::roce::rnr::RnrTimer;

/// The decoded context of a queue pair; replaced as a whole when the context changes.
#[derive(Debug, Clone, Serialize)]
pub struct Parameters {
    /// State of the queue pair.
    pub state: QpState,
    /// Number of resets before: the same queue pair after a reset is another one to a packet.
    #[serde(skip)]
    pub generation: u64,
    /// Transport service, one of [`service`].
    pub service: u8,
    /// Protection domain.
    pub pd: u32,
    /// XRC domain of an XRC target.
    pub xrcd: u32,
    /// Path MTU: maximum bytes of payload in a packet.
    pub mtu: usize,
    /// QP number of the peer (24 bits).
    pub remote_qpn: u32,
    /// Path to the peer, if its address is valid.
    #[serde(skip)]
    pub path: Option<Path>,
    /// Whether the peer may read (`rre`).
    pub remote_read: bool,
    /// Whether the peer may write (`rwe`).
    pub remote_write: bool,
    /// Whether the peer may execute atomics (`rae`).
    pub remote_atomic: bool,
    /// Limit on outstanding reads and atomics as a requester.
    pub max_requests: usize,
    /// Limit on remembered reads and atomics as a responder.
    pub max_resources: usize,
    /// Delay in RNR NAKs (`min_rnr_nak`).
    #[serde(skip)]
    pub rnr_timer: RnrTimer,
    /// Packets after which an acknowledgement is requested at the latest (`log_ack_req_freq`).
    pub acknowledge_every: u32,
    /// Limit on retries without a response.
    pub retry_count: u8,
    /// Limit on retries after RNR NAKs; 7 means retry indefinitely.
    pub rnr_retry: u8,
    /// Acknowledgement timeout: 4.096 us times two to the power of this; 0 means none.
    pub ack_timeout: u8,
    /// Q_Key of datagrams.
    pub q_key: u32,
    /// User index that completions carry.
    pub user_index: u32,
    /// Maximum bytes of response data in a completion (`cs_req`).
    pub requester_inline: usize,
    /// Maximum bytes of received data in a completion (`cs_res`).
    pub responder_inline: usize,
    /// Whether WQEs may use the reserved L_Key (`rlky`).
    pub reserved_lkey: bool,
    /// Whether WQEs may register page lists (`fre`).
    pub fast_register: bool,
    /// Source QP number of datagrams, if not the queue pair's own.
    pub deth_sqpn: u32,
    /// Whether the queue pair's own multicasts are not delivered to it (`block_lb_mc`).
    pub block_multicast_loopback: bool,
    /// Counter set, if any.
    #[serde(skip)]
    pub counters: Option<Arc<QueueCounters>>,
}

/// Maximum bytes of data in a completion, by the context's code (`MLX5_QPC_CS_REQ_*`, `MLX5_QPC_CS_RES_*`).
fn inline(code: u8) -> usize {
    match code & 0xf {
        1 => 32,
        2 => 64,
        _ => 0,
    }
}

impl Parameters {
    /// Number of packets of a message of this length in bytes.
    pub fn packets(&self, length: usize) -> u32 {
        // Most messages have one, and a division is slow. No message has 2^32 bytes.
        if length <= self.mtu {
            1
        } else {
            length.div_ceil(self.mtu) as u32
        }
    }

    /// Whether the service is acknowledged.
    pub fn is_reliable(&self) -> bool {
        matches!(self.service, service::RC | service::XRC)
    }

    /// Transport of packets of a connected service.
    pub fn transport(&self) -> Transport {
        match self.service {
            service::UC => Transport::Uc,
            service::XRC => Transport::Xrc,
            _ => Transport::Rc,
        }
    }

    /// Increments a counter of the counter set, if there is one.
    pub fn count(&self, counter: QueueCounter) {
        if let Some(counters) = &self.counters {
            counters.count(counter);
        }
    }

    pub(super) fn new(
        state: QpState,
        generation: u64,
        context: &Qpc,
        vport: &Vport,
        counters: Option<Arc<QueueCounters>>,
    ) -> Self {
        Self {
            state,
            generation,
            service: context.st(),
            pd: context.pd(),
            xrcd: context.xrcd(),
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

/// The path of the context's primary address path.
fn path(ads: &Ads, vport: &Vport) -> Option<Path> {
    let source = vport.roce_source(ads.src_addr_index())?;
    Some(Path {
        source_mac: source.mac,
        destination_mac: Mac::from_halves(ads.rmac_47_32(), ads.rmac_31_0()),
        vlan: source.vlan.map(|id| Vlan {
            id,
            priority: ads.eth_prio(),
        }),
        addresses: source.addresses(Gid(*ads.rgid_rip())),
        udp_source_port: ads.udp_sport(),
        // The field depends on the version (`mlx5_set_path`, `drivers/infiniband/hw/mlx5/qp.c`).
        traffic_class: match source.v1 {
            true => ads.tclass(),
            false => ads.dscp() << 2 | ads.ecn(),
        },
        hop_limit: ads.hop_limit(),
        flow_label: ads.flow_label(),
    })
}
