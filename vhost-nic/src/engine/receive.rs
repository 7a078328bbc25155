//! Frames in, to the receive queues the guest's flow tables name.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, Syndrome};

use super::{Engine, rdma};
use crate::dma::Purpose;
use crate::frame::checksum::{Coverage, Verified, verify};
use crate::frame::mac::CastType;
use crate::frame::rss::HashResult;
use crate::frame::view::{FrameView, Network, Transport, ethertype, tcp_flags};
use crate::hca::guest_error::GuestError;
use crate::hca::mkey::{self, Access, Accessor, Segment};
use crate::hca::queue_counter::QueueCounter;
use crate::hca::rq::{QueueState, Rq, RqState};
use crate::hca::steering::{Delivery, Outcome, table_type};
use crate::hca::tis_tir_rqt::{Dispatch, Tir};
use crate::net::Burst;
use crate::roce::packet::is_roce;

/// Bytes of a frame beyond the MTU: Ethernet header and two VLAN tags.
const FRAME_OVERHEAD: usize = 14 + 8;
/// What a TIR takes of the function itself, in `self_lb_block`. The names in mlx5_ifc.h (`MLX5_TIRC_SELF_LB_BLOCK_*`) say the contrary; the
/// driver sets the bits to allow it (`mlx5e_modify_tirs_lb` of the loopback test, `MLX5_QP_FLAG_TIR_ALLOW_SELF_LB_UC`).
const SELF_UNICAST: u8 = 1;
const SELF_MULTICAST: u8 = 2;
/// Bytes of the Ethernet addresses, behind which a VLAN tag stands, and of the tag.
const ADDRESSES: usize = 12;
const TAG: usize = 4;

thread_local! {
    /// A frame can lead to another one's arrival only at another NIC, but on the same thread.
    static DELIVERIES: RefCell<Vec<Vec<Delivery<Arc<Tir>>>>> = const { RefCell::new(Vec::new()) };
}

/// Where a frame comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wire,
    /// With the transport domain that sent it, if it was not RDMA.
    Itself(Option<u32>),
}

/// Takes frames from the wire.
pub(super) fn from_wire(engine: &Engine, burst: &Burst<'_>) {
    let counters = &engine.hca.port_counters;
    let port = engine.hca.port.state();
    let longest = usize::from(port.mtu()) + FRAME_OVERHEAD;
    if !engine.hca.port.initialized() || !port.link_up() {
        counters.refused.fetch_add(burst.count(), Ordering::Relaxed);
        return;
    }
    if let Some(long) = burst.without_long(longest, |single| from_wire(engine, single)) {
        counters.refused.fetch_add(long, Ordering::Relaxed);
        return;
    }
    if burst.addresses().is_some() {
        counters.received.count(burst);
        deliver(engine, burst, Source::Wire);
    }
}

/// Takes frames the function sent to itself.
pub(super) fn from_self(engine: &Engine, burst: &Burst<'_>, domain: Option<u32>) {
    deliver(engine, burst, Source::Itself(domain));
}

fn deliver(engine: &Engine, burst: &Burst<'_>, source: Source) {
    let own = source != Source::Wire;
    let count_rdma = |burst: &Burst<'_>| {
        if !own {
            engine.hca.port_counters.rdma_received.count(burst);
        }
    };
    if burst.is_of_super_packets() && rdma::receive_burst(engine, burst.frames(), own) {
        return count_rdma(burst);
    }
    burst.each(|frame| {
        // The guest's flow tables want all of it.
        let bytes = frame.to_bytes();
        let Some(view) = bytes.as_deref().and_then(FrameView::new) else {
            return;
        };
        if is_roce(&view) && rdma::receive(engine, &view, own) {
            count_rdma(&Burst::new(&[frame]));
        } else {
            to_tables(engine, &view, source);
        }
    });
}

fn to_tables(engine: &Engine, view: &FrameView<'_>, source: Source) {
    let hca = &engine.hca;
    let mut deliveries = DELIVERIES.with_borrow_mut(Vec::pop).unwrap_or_default();
    let outcome = hca.steering.classify(table_type::NIC_RX, view, &mut deliveries);
    if outcome == Outcome::Deliver {
        // The same for all copies, and for most frames there is one.
        let verified = verify(view, Coverage::Packet);
        for Delivery { target: tir, flow_tag } in deliveries.drain(..) {
            to_tir(engine, &tir, flow_tag, view, verified, source);
        }
    } else if source == Source::Wire {
        hca.port_counters.unmatched.fetch_add(1, Ordering::Relaxed);
    }
    DELIVERIES.with_borrow_mut(|spare| spare.push(deliveries));
}

fn to_tir(engine: &Engine, tir: &Tir, flow_tag: u32, view: &FrameView<'_>, verified: Verified, source: Source) {
    let state = tir.state.read();
    let allowed = match CastType::of(view.destination()) {
        CastType::Unicast => SELF_UNICAST,
        CastType::Multicast | CastType::Broadcast => SELF_MULTICAST,
    };
    // A frame of another transport domain is not its own.
    let own = match source {
        Source::Wire => false,
        Source::Itself(domain) => domain.is_none_or(|domain| domain == state.context().transport_domain()),
    };
    if own && state.context().self_lb_block() & allowed == 0 {
        return;
    }
    let (rq, hash) = match &state.dispatch {
        Dispatch::Direct(rq, _) => (Some(rq.clone()), HashResult::default()),
        Dispatch::Nowhere => (None, HashResult::default()),
        Dispatch::Indirect(rqt, _) => {
            let hash = state.hash.hash(view);
            (rqt.queue(hash.value), hash)
        }
    };
    drop(state);
    if let Some(rq) = rq {
        to_queue(engine, &rq, flow_tag, view, verified, hash);
    }
}

fn to_queue(engine: &Engine, rq: &Rq, flow_tag: u32, view: &FrameView<'_>, verified: Verified, hash: HashResult) {
    let hca = &engine.hca;
    let mut guard = rq.lock();
    let state = &mut *guard;
    if state.state != QueueState::Ready {
        hca.port_counters.not_ready.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let producer = match rq.ring.receive_producer(&hca.dma) {
        Ok(producer) => producer,
        Err(error) => {
            let what = format_args!("Receive queue {:#x}: {error}", rq.number);
            return hca.guest_errors.report(GuestError::UnreadableDoorbellRecord, what);
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
    state.consumer = index.wrapping_add(1);
    let mut cqe = Cqe::new(CqeOpcode::ResponderSend);
    let tag = view.vlan[0].filter(|tag| tag.tpid == ethertype::CVLAN && !state.context.vsd());
    let stored = match tag {
        Some(tag) => {
            cqe.vlan_info.set(tag.tci);
            cqe.l4_l3_hdr_type |= 1;
            scatter(
                engine,
                rq,
                state,
                index,
                &[&view.bytes()[..ADDRESSES], &view.bytes()[ADDRESSES + TAG..]],
            )
        }
        None => scatter(engine, rq, state, index, &[view.bytes()]),
    };
    let length = match stored {
        Ok(length) => length,
        Err((syndrome, why)) => {
            let what = format_args!("Receive queue {:#x}, WQE {index:#x}: {why}", rq.number);
            hca.guest_errors.report(GuestError::BadReceiveWqe, what);
            return fail(rq, state, index, syndrome);
        }
    };
    cqe.byte_count.set(length as u32);
    cqe.check_sum.set(verified.check_sum);
    cqe.hds_ip_ext = if verified.l3_ok { Cqe::L3_OK } else { 0 } | if verified.l4_ok { Cqe::L4_OK } else { 0 };
    cqe.l4_l3_hdr_type |= header_types(view);
    cqe.rss_hash_result.set(hash.value);
    cqe.rss_hash_type = hash.kind;
    cqe.srqn_uidx.set(state.context.user_index());
    cqe.sop_drop_qpn.set(flow_tag);
    cqe.wqe_counter.set(index);
    rq.cq.post(cqe);
}

/// Writes a frame, given in parts, into the memory of a WQE, and returns its length.
fn scatter(
    engine: &Engine,
    rq: &Rq,
    state: &mut RqState,
    index: u16,
    parts: &[&[u8]],
) -> Result<usize, (Syndrome, String)> {
    let hca = &engine.hca;
    let protection = |why: String| (Syndrome::LocalProtection, why);
    rq.ring
        .receive_wqe(&hca.dma, index.into(), &mut state.segments)
        .map_err(|error| protection(error.to_string()))?;
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let room: u64 = state
        .segments
        .iter()
        .map(|segment| u64::from(segment.byte_count.get()))
        .sum();
    if (length as u64) > room {
        return Err((Syndrome::LocalLength, format!("{length} bytes do not fit in {room}")));
    }
    let accessor = Accessor {
        pd: rq.pd,
        qpn: rq.number,
        reserved_lkey: false,
    };
    let mut segments = state.segments.iter();
    let (mut key, mut address, mut left) = (0, 0, 0);
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            if left == 0 {
                let Some(segment) = segments.next() else { break };
                (key, address, left) = (
                    segment.lkey.get(),
                    segment.address.get(),
                    segment.byte_count.get() as usize,
                );
            }
            let (now, later) = rest.split_at(rest.len().min(left));
            let mut unwritten = now;
            mkey::translate(
                &hca.mkeys,
                key,
                accessor,
                address,
                now.len() as u64,
                Access::LocalWrite,
                |piece| {
                    let (data, more) = unwritten.split_at(piece.length().min(unwritten.len()));
                    unwritten = more;
                    match piece {
                        Segment::Memory(address, _) => hca.dma.write(Purpose::Scatter, address, data),
                        Segment::Null(_) => Ok(()),
                    }
                },
            )
            .map_err(|error| protection(error.to_string()))?
            .map_err(|error| protection(error.to_string()))?;
            address = address.wrapping_add(now.len() as u64);
            left -= now.len();
            rest = later;
        }
    }
    Ok(length)
}

/// The kinds of headers, as `l4_l3_hdr_type` says it (`get_cqe_l4_hdr_type`, `get_cqe_l3_hdr_type`, device.h).
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

/// A queue that cannot receive goes to error.
fn fail(rq: &Rq, state: &mut RqState, index: u16, syndrome: Syndrome) {
    let mut error = ErrorCqe::new(CqeOpcode::ResponderError, syndrome);
    error.srqn_uidx.set(state.context.user_index());
    error.s_wqe_opcode_qpn.set(rq.number);
    error.wqe_counter.set(index);
    state.become_state(QueueState::Error);
    rq.cq.post(error.into());
}
