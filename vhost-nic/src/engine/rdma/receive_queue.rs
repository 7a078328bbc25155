//! Where a queue pair takes receive WQEs from, and where they complete.

use std::sync::Arc;

use super::Engine;
use crate::hca::cq::Cq;
use crate::hca::qp::{Parameters, Qp, Receive, ReceiveSource, Responder};
use crate::hca::srq::{LIMIT_EVENT, ReceiveList, XrcSrq, event_data};
use crate::roce::packet::Packet;

/// The shared receive queue that an XRC packet names.
pub(super) fn xrc_srq(engine: &Engine, packet: &Packet) -> Option<Arc<XrcSrq>> {
    engine.hca.xrc_srqs.get(packet.headers.xrc?.srqn())
}

/// Takes a receive WQE; none if none is posted.
pub(super) fn take(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    packet: &Packet,
) -> Option<Receive> {
    if let Some(spare) = responder.spare.take() {
        return Some(spare);
    }
    let dma = &engine.hca.dma;
    let mut segments = Vec::new();
    let from_list = |list: &ReceiveList, number: u32, segments: &mut Vec<_>| {
        let taken = list.take(dma, segments).ok()??;
        if taken.limit_reached {
            engine.hca.eqs.announce(LIMIT_EVENT, 0, &event_data(number));
        }
        Some(taken.index)
    };
    let (wqe_counter, pd) = match &qp.receives {
        ReceiveSource::Own(ring) => {
            let index = responder.consumer;
            if ring.receive_producer(dma).ok()? == index {
                return None;
            }
            ring.receive_wqe(dma, index.into(), &mut segments).ok()?;
            responder.consumer = index.wrapping_add(1);
            (index, parameters.pd)
        }
        ReceiveSource::Pool(rmp) => (from_list(&rmp.list, rmp.number, &mut segments)?, rmp.pd()),
        ReceiveSource::Xrc => {
            let srq = xrc_srq(engine, packet)?;
            (from_list(&srq.list, srq.number, &mut segments)?, srq.pd())
        }
        ReceiveSource::None => return None,
    };
    let room = segments.iter().map(|segment| u64::from(segment.byte_count.get())).sum();
    Some(Receive {
        wqe_counter,
        pd,
        segments,
        room,
    })
}

/// Where a receive completes, and how its queue is named there.
pub(super) fn with_cq(engine: &Engine, qp: &Qp, parameters: &Parameters, packet: &Packet, act: impl FnOnce(&Cq, u32)) {
    if let ReceiveSource::Xrc = qp.receives {
        if let Some(srq) = xrc_srq(engine, packet) {
            let user_index = srq.context.lock().user_index();
            act(&srq.cq, user_index);
        }
    } else if let Some(cq) = &qp.receive_cq {
        act(cq, parameters.user_index);
    }
}
