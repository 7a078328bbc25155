//! The way in: RoCE to queue pairs, every other frame through the flow tables to receive queues.
//!
//! [`receive`] runs on the thread of the sender, whether the frames come from the wire or through the hairpin. A
//! payload is copied once, from the sender's memory to the receiver's, and no frame waits in a queue. The price: a
//! sender's thread spends time on the receiver's behalf, and must not hold the locks of its queues meanwhile. How much
//! time, the receiver decides, by its flow tables and keys: a frame that exceeds the
//! [budget](crate::hca::step_budget) of its delivery is left to the receiver's thread, and so are all that come while
//! one waits ([`leave`]). They are bytes by then, and refer to no memory of the sender; [`resume`] receives them.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backlog::{Arrival, Progress};
use super::context::{Context, Origin};
use super::ethernet::receive::Reception;
use super::rdma::{self, Arriving};
use crate::frame::checksum::{Coverage, verify};
use crate::frame::mac::CastType;
use crate::frame::rss::HashResult;
use crate::frame::view::FrameView;
use crate::hca::steering::{Delivery, Outcome, table_type};
use crate::hca::step_budget;
use crate::hca::tis_tir_rqt::{Dispatch, Tir};
use crate::net::{Burst, Frame, FrameNumber, PortId};
use crate::roce::packet::is_roce;

/// Loopback frames a TIR accepts, in `self_lb_block`. The names in mlx5_ifc.h (`MLX5_TIRC_SELF_LB_BLOCK_*`) say the
/// opposite; the driver sets the bits to allow them (`mlx5e_modify_tirs_lb` of the loopback test,
/// `MLX5_QP_FLAG_TIR_ALLOW_SELF_LB_UC`).
const SELF_UNICAST: u8 = 1;
const SELF_MULTICAST: u8 = 2;

/// Steps that a copy of a frame takes besides those of its descriptors and keys.
const COPY_STEPS: u64 = 8;

thread_local! {
    /// Spare lists, a stack: the arrival of a frame can cause that of another at another NIC, on the same thread.
    static DELIVERIES: RefCell<Vec<Vec<Delivery<Arc<Tir>>>>> = const { RefCell::new(Vec::new()) };
}

/// Receives frames on the calling thread, the sender's (see the module), as far as its budget goes.
pub(super) fn receive(context: &Context, burst: &Burst<'_>, origin: Origin) {
    match origin {
        Origin::Wire => from_wire(context, burst),
        Origin::Loopback { .. } => dispatch(context, burst, origin),
    }
}

/// Leaves frames from the wire to the NIC's thread.
#[cold]
pub(super) fn leave(context: &Context, burst: &Burst<'_>) {
    burst.each(|frame| {
        if let Some(bytes) = frame.to_bytes() {
            let arrival = Arrival {
                bytes: bytes.into_owned(),
                number: number_of(&frame, burst),
                progress: None,
            };
            context.leave(burst.port(), arrival);
        }
    });
}

/// Receives a frame that was left, on the NIC's thread.
pub(super) fn resume(context: &Context, port: PortId, arrival: Arrival) {
    let frames = [Frame::new(&arrival.bytes)];
    let burst = Burst::new(&frames);
    burst.set_number(arrival.number);
    match arrival.progress {
        None => from_wire(context, &burst),
        Some(_) if !context.initialized() => drop(context.hca.port_counters.refused.fetch_add(1, Ordering::Relaxed)),
        Some(progress) => {
            if let Some(view) = FrameView::new(&arrival.bytes) {
                let from = Source {
                    port,
                    number: arrival.number,
                    origin: Origin::Wire,
                };
                let arriving = Arriving { port, loopback: false };
                // Counted before.
                if !is_roce(&view) || !rdma::receive(context, &view, from.number, progress.copies, arriving) {
                    classify(context, &view, from, progress);
                }
            }
        }
    }
}

fn number_of(frame: &Frame<'_>, burst: &Burst<'_>) -> FrameNumber {
    match frame {
        Frame::SuperPacket(packet) => packet.number.get(),
        Frame::Bytes(_) => burst.number(),
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
        counters.received.count(burst);
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
    let port = burst.port();
    if burst.is_of_super_packets() && rdma::receive_burst(context, burst.frames(), Arriving { port, loopback }) {
        return count_rdma(burst);
    }
    burst.each(|frame| {
        // Flow tables and the guest's network stack need all bytes.
        let bytes = frame.to_bytes();
        let Some(view) = bytes.as_deref().and_then(FrameView::new) else {
            return;
        };
        let from = Source {
            port,
            number: number_of(&frame, burst),
            origin,
        };
        if step_budget::is_exceeded() {
            // A frame before it is left.
            let arrival = Arrival {
                bytes: view.bytes().to_vec(),
                number: from.number,
                progress: Some(Progress::default()),
            };
            context.leave(port, arrival);
        } else if is_roce(&view) && rdma::receive(context, &view, from.number, 0, Arriving { port, loopback }) {
            count_rdma(&Burst::new(&[frame]));
        } else {
            classify(context, &view, from, Progress::default());
        }
    });
}

/// Where a frame comes from.
#[derive(Clone, Copy)]
struct Source {
    port: PortId,
    number: FrameNumber,
    origin: Origin,
}

/// Delivers a frame to the TIRs that the flow tables name, but for what was done before. If the budget does not
/// suffice, leaves the rest to the NIC's thread.
fn classify(context: &Context, view: &FrameView<'_>, from: Source, done: Progress) {
    let hca = &context.hca;
    let mut deliveries = DELIVERIES.with_borrow_mut(Vec::pop).unwrap_or_default();
    let outcome = match done.classified {
        false => hca.steering.classify(table_type::NIC_RX, view, &mut deliveries),
        true => hca.steering.classify_again(table_type::NIC_RX, view, &mut deliveries),
    };
    let mut left = None;
    match outcome {
        Outcome::Deliver => {
            let reception = Reception {
                context,
                view,
                number: from.number,
                verified: verify(view, Coverage::Packet),
            };
            for (copies, Delivery { target: tir, flow_tag }) in deliveries.drain(..).enumerate().skip(done.copies) {
                if deliver(&reception, &tir, flow_tag, from.origin).is_break() {
                    let classified = true;
                    left = Some(Progress { classified, copies });
                    break;
                }
            }
        }
        Outcome::OutOfSteps => left = Some(done),
        _ if from.origin == Origin::Wire => drop(hca.port_counters.unmatched.fetch_add(1, Ordering::Relaxed)),
        _ => {}
    }
    DELIVERIES.with_borrow_mut(|spare| spare.push(deliveries));
    if left.is_some() {
        let arrival = Arrival {
            bytes: view.bytes().to_vec(),
            number: from.number,
            progress: left,
        };
        context.leave(from.port, arrival);
    }
}

/// Delivers a frame to the receive queue that a TIR chooses. Breaks, without an effect, if the budget does not suffice.
fn deliver(reception: &Reception<'_>, tir: &Tir, flow_tag: u32, origin: Origin) -> ControlFlow<()> {
    if !step_budget::take(COPY_STEPS) {
        return ControlFlow::Break(());
    }
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
        return ControlFlow::Continue(());
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
    match rq {
        Some(rq) => reception.receive(&rq, flow_tag, hash),
        None => ControlFlow::Continue(()),
    }
}
