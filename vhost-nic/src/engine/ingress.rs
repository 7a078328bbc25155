//! The way in: RoCE to queue pairs, every other frame through the flow tables to receive queues.
//!
//! [`receive`] binds a receiver's work to a thread: it runs to its end on the thread of the sender, whether the frames
//! come from the wire or through the hairpin. A payload is copied once, from the sender's memory to the receiver's, and
//! no frame waits in a queue. The price: a sender's thread spends time on the receiver's behalf, and must not hold the
//! locks of a queue pair meanwhile. To give each receiver a thread, replace this function by one that queues frames for
//! that thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::{Context, Origin};
use super::ethernet::receive::Reception;
use super::held_completions::HeldCompletions;
use super::rdma;
use crate::frame::checksum::{Coverage, verify};
use crate::frame::mac::CastType;
use crate::frame::rss::HashResult;
use crate::frame::view::FrameView;
use crate::hca::steering::{Delivery, Outcome, table_type};
use crate::hca::tis_tir_rqt::{Dispatch, Tir};
use crate::net::{Burst, Frame, FrameNumber};
use crate::roce::packet::is_roce;

/// Loopback frames a TIR accepts, in `self_lb_block`. The names in mlx5_ifc.h (`MLX5_TIRC_SELF_LB_BLOCK_*`) say the
/// opposite; the driver sets the bits to allow them (`mlx5e_modify_tirs_lb` of the loopback test,
/// `MLX5_QP_FLAG_TIR_ALLOW_SELF_LB_UC`).
const SELF_UNICAST: u8 = 1;
const SELF_MULTICAST: u8 = 2;

thread_local! {
    /// Spare lists, a stack: the arrival of a frame can cause that of another at another NIC, on the same thread.
    static DELIVERIES: RefCell<Vec<Vec<Delivery<Arc<Tir>>>>> = const { RefCell::new(Vec::new()) };
}

/// Receives frames on the calling thread, the sender's (see the module).
pub(super) fn receive(context: &Context, burst: &Burst<'_>, origin: Origin) {
    match origin {
        Origin::Wire => from_wire(context, burst),
        Origin::Loopback { .. } => dispatch(context, burst, origin),
    }
}

fn from_wire(context: &Context, burst: &Burst<'_>) {
    let counters = &context.hca.port_counters;
    let link = context.link();
    if !context.initialized() || !link.up {
        counters.refused.fetch_add(burst.count(), Ordering::Relaxed);
        return;
    }
    if let Some(long) = burst.without_long(link.longest_frame, |single| from_wire(context, single)) {
        counters.refused.fetch_add(long, Ordering::Relaxed);
        return;
    }
    if burst.addresses().is_some() {
        counters.received.count(burst, &context.hca.priorities);
        dispatch(context, burst, Origin::Wire);
    }
}

fn dispatch(context: &Context, burst: &Burst<'_>, origin: Origin) {
    let loopback = origin != Origin::Wire;
    let count_rdma = |burst: &Burst<'_>| {
        if !loopback {
            context.hca.port_counters.rdma_received.count(burst);
        }
    };
    if burst.is_of_super_packets() && rdma::receive_burst(context, burst.frames(), loopback) {
        return count_rdma(burst);
    }
    let held = (burst.count() > 1).then(HeldCompletions::default);
    let mut next = burst.number();
    burst.each(|frame| {
        let in_burst = next;
        next = next.plus(1);
        // Flow tables and the guest's network stack need all bytes.
        let bytes = frame.to_bytes();
        let Some(view) = bytes.as_deref().and_then(FrameView::new) else {
            return;
        };
        let number = match frame {
            Frame::SuperPacket(packet) => packet.number.get(),
            Frame::Bytes(_) => in_burst,
        };
        if is_roce(&view) && rdma::receive(context, &view, number, loopback) {
            count_rdma(&Burst::new(&[frame]));
        } else {
            classify(context, &view, number, origin, held.as_ref());
        }
    });
}

/// Delivers a frame to the TIRs that the flow tables name.
fn classify(
    context: &Context,
    view: &FrameView<'_>,
    number: FrameNumber,
    origin: Origin,
    burst: Option<&HeldCompletions>,
) {
    let hca = &context.hca;
    let mut deliveries = DELIVERIES.with_borrow_mut(Vec::pop).unwrap_or_default();
    let outcome = hca.steering.classify(table_type::NIC_RX, view, &mut deliveries);
    if outcome == Outcome::Deliver {
        let reception = Reception {
            context,
            view,
            number,
            verified: verify(view, Coverage::Packet),
            burst,
        };
        for Delivery { target: tir, flow_tag } in deliveries.drain(..) {
            deliver(&reception, &tir, flow_tag, origin);
        }
    } else if origin == Origin::Wire {
        hca.port_counters.unmatched.fetch_add(1, Ordering::Relaxed);
    }
    DELIVERIES.with_borrow_mut(|spare| spare.push(deliveries));
}

/// Delivers a frame to the receive queue that a TIR chooses.
fn deliver(reception: &Reception<'_>, tir: &Tir, flow_tag: u32, origin: Origin) {
    let view = reception.view;
    let state = tir.state.read();
    let allowed = match CastType::of(view.destination()) {
        CastType::Unicast => SELF_UNICAST,
        CastType::Multicast | CastType::Broadcast => SELF_MULTICAST,
    };
    // Frames of another transport domain are not blocked.
    let own = match origin {
        Origin::Wire => false,
        Origin::Loopback { transport_domain } => {
            transport_domain.is_none_or(|domain| domain == state.context().transport_domain())
        }
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
        reception.receive(&rq, flow_tag, hash);
    }
}
