//! Receive queues: frames into receive WQEs.

use std::sync::atomic::Ordering;

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, EventType, Syndrome};
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::denial;
use super::super::held_completions::HeldCompletions;
use super::super::memory::{AccessError, Memory, Parts};
use crate::frame::checksum::Verified;
use crate::frame::rss::HashResult;
use crate::frame::view::{FrameView, Network, Transport, ethertype, tcp_flags};
use crate::hca::cq::{Completion, CqInError};
use crate::hca::event::{EventQueue, event_data};
use crate::hca::mkey::Accessor;
use crate::hca::nic_event::NicEvent;
use crate::hca::nic_finding::{Finding, queue};
use crate::hca::pcie_latency::Transaction;
use crate::hca::queue_counter::QueueCounter;
use crate::hca::rq::{QueueState, Rq, RqState};
use crate::hca::wq::WqType;
use crate::net::{Effect, FrameNumber, QueueKind, WqeId};

/// Bytes of the Ethernet addresses, which a VLAN tag follows.
const ADDRESSES: usize = 12;
/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// A frame to be received, with the results of its checksum verification: common to all copies.
pub(in crate::engine) struct Reception<'a> {
    pub context: &'a Context,
    pub view: &'a FrameView<'a>,
    /// Number of the frame, for the taps.
    pub number: FrameNumber,
    pub verified: Verified,
    /// The burst of the frame, if there are others in it.
    pub burst: Option<&'a HeldCompletions>,
}

/// Reason why a WQE cannot take a frame.
struct Failure {
    syndrome: Syndrome,
    why: String,
    denied: Option<AccessError>,
}

impl Reception<'_> {
    /// Writes the frame into the next WQE of a receive queue, and completes it.
    pub fn receive(&self, rq: &Rq, flow_tag: u32, hash: HashResult) {
        let (hca, view) = (&self.context.hca, self.view);
        let mut guard = rq.lock();
        let state = &mut *guard;
        if state.state != QueueState::Ready {
            hca.port_counters.not_ready.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let producer = match rq.wq.receive_producer(&hca.dma) {
            Ok(producer) => producer,
            Err(error) => {
                hca.findings.report_doorbell_record(queue(rq.number), &error);
                return self.end(rq, state);
            }
        };
        if producer == state.consumer {
            hca.port_counters.out_of_buffer.fetch_add(1, Ordering::Relaxed);
            if let Some(counters) = &rq.counters {
                counters.count(QueueCounter::OutOfBuffer);
            }
            return;
        }
        let index = state.consumer;
        if rq.wq.wq_type == WqType::Cyclic {
            rq.wq.check_overrun(&hca.findings, rq.number, producer, index);
        }
        state.consumer = index.wrapping_add(1);
        state.wqe_reads.add(1, rq.wq.stride() as u64);
        for transaction in [Transaction::WqeRead, Transaction::PayloadWrite] {
            hca.pcie_latency.spend(transaction);
        }
        let mut cqe = Cqe::new(CqeOpcode::ResponderSend);
        let tag = view.vlan[0].filter(|tag| tag.tpid == ethertype::CVLAN && !state.context.vsd());
        let bytes = match tag {
            Some(tag) => {
                cqe.vlan_info.set(tag.tci);
                cqe.l4_l3_hdr_type |= 1;
                Parts(&view.bytes()[..ADDRESSES], &view.bytes()[ADDRESSES + TAG..])
            }
            None => Parts(view.bytes(), &[]),
        };
        let length = bytes.len();
        if let Err(Failure { syndrome, why, denied }) = self.store(rq, state, index, bytes) {
            let what = format_args!("receive queue {:#x}, WQE {index:#x}: {why}", rq.number);
            let evidence = state.segments.as_bytes();
            hca.findings
                .report(Finding::BadReceiveWqe, queue(rq.number), evidence, what);
            if let Some(error) = denied {
                denial::report(hca, rq.number, &error);
            }
            let mut error = ErrorCqe::new(CqeOpcode::ResponderError, syndrome);
            error.srqn_uidx.set(state.context.user_index());
            error.s_wqe_opcode_qpn.set(rq.number);
            error.wqe_counter.set(index);
            self.complete(rq, state, index, error.into());
            return state.become_state(QueueState::Error);
        }
        cqe.byte_count.set(length as u32);
        cqe.check_sum.set(self.verified.check_sum);
        cqe.hds_ip_ext =
            if self.verified.l3_ok { Cqe::L3_OK } else { 0 } | if self.verified.l4_ok { Cqe::L4_OK } else { 0 };
        cqe.l4_l3_hdr_type |= header_types(view);
        cqe.rss_hash_result.set(hash.value);
        cqe.rss_hash_type = hash.kind;
        cqe.srqn_uidx.set(state.context.user_index());
        cqe.sop_drop_qpn.set(flow_tag);
        cqe.wqe_counter.set(index);
        let arguments = || [index.into(), length as u32, 0, 0];
        hca.tracer.record(NicEvent::FrameIn, rq.number, arguments);
        self.complete(rq, state, index, cqe);
    }

    /// Moves the queue to the error state, with a local work queue catastrophic error (IBTA 11.6.3.2).
    #[cold]
    fn end(&self, rq: &Rq, state: &mut RqState) {
        state.become_state(QueueState::Error);
        let data = event_data(EventQueue::Rq, rq.number);
        let eqs = &self.context.hca.eqs;
        eqs.announce(EventType::WqCatastrophicError, 0, &data);
    }

    /// Posts the completion of a WQE, and notes that the frame ended it. If the completion queue does not take it, ends
    /// the queue. One that the door made an error moves the queue to the error state.
    fn complete(&self, rq: &Rq, state: &mut RqState, index: u16, cqe: Cqe) {
        let posted = match self.burst {
            Some(burst) if rq.cq.compresses() => burst.post(&rq.cq, rq.number, cqe),
            _ => {
                self.context.hca.pcie_latency.spend(Transaction::CqeWrite);
                rq.cq.post_of(rq.number, cqe)
            }
        };
        match posted {
            Ok(Completion { failed, .. }) if failed => state.become_state(QueueState::Error),
            Ok(_) => {}
            Err(CqInError) => self.end(rq, state),
        }
        self.context.note(self.number, 1, || {
            let wqe = WqeId {
                kind: QueueKind::Rq,
                queue: rq.number,
                index,
                receive: true,
            };
            Effect::Ends(wqe, posted.ok().and_then(|completion| completion.place))
        });
    }

    /// Scatters a frame into the memory of a WQE.
    fn store(&self, rq: &Rq, state: &mut RqState, index: u16, mut frame: Parts<'_>) -> Result<(), Failure> {
        let hca = &self.context.hca;
        let protection = |error: AccessError| Failure {
            syndrome: Syndrome::LocalProtection,
            why: error.to_string(),
            denied: Some(error),
        };
        rq.wq
            .receive_wqe(&hca.dma, index.into(), &mut state.segments)
            .map_err(|error| protection(error.into()))?;
        let length = frame.len();
        let room: u64 = state
            .segments
            .iter()
            .map(|segment| u64::from(segment.byte_count.get()))
            .sum();
        if (length as u64) > room {
            return Err(Failure {
                syndrome: Syndrome::LocalLength,
                why: format!("{length} bytes do not fit in {room}"),
                denied: None,
            });
        }
        let memory = Memory {
            hca,
            accessor: Accessor {
                pd: rq.pd,
                qpn: rq.number,
                reserved_lkey: false,
            },
        };
        memory
            .scatter(state.segments.iter().copied(), 0..length, &mut frame)
            .map_err(protection)?;
        let segments = state.segments.iter();
        let segments = segments.map(|segment| (segment.byte_count.get() as usize, true));
        state.payload.writes.add_packets(segments, 0..length, length);
        Ok(())
    }
}

/// Header types in the encoding of `l4_l3_hdr_type` (`get_cqe_l4_hdr_type`, `get_cqe_l3_hdr_type`, device.h).
fn header_types(view: &FrameView<'_>) -> u8 {
    let l3 = match view.network {
        Network::None => 0,
        Network::Ipv6(_) => 1,
        Network::Ipv4(_) => 2,
    };
    let l4 = match view.transport {
        Transport::Udp(_) => 2,
        Transport::Tcp(tcp) if tcp.flags & tcp_flags::ACK == 0 => 1,
        Transport::Tcp(tcp) if view.transport_range().len() == tcp.header_length => 3,
        Transport::Tcp(_) => 4,
        Transport::None | Transport::Ipsec { .. } => 0,
    };
    l4 << 4 | l3 << 2
}
