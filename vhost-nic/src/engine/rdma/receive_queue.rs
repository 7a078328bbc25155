//! Source of a queue pair's receive WQEs, and where they complete.

use std::sync::Arc;

use super::super::context::Context;
use super::completion::ReceiveCq;
use super::endpoint::Endpoint;
use crate::dma::DmaError;
use crate::hca::nic_finding::queue;
use crate::hca::qp::{Receive, ReceiveSource, Responder};
use crate::hca::srq::{LIMIT_EVENT, ReceiveList, XrcSrq, event_data};
use crate::roce::packet::Packet;

/// The shared receive queue that an XRC packet names.
pub(super) fn xrc_srq(context: &Context, packet: &Packet) -> Option<Arc<XrcSrq>> {
    context.hca.xrc_srqs.get(packet.headers.xrc?.srqn())
}

/// Takes a receive WQE, if one is posted.
pub(super) fn take(endpoint: &Endpoint<'_>, responder: &mut Responder, packet: &Packet) -> Option<Receive> {
    if let Some(spare) = responder.take_spare() {
        return Some(spare);
    }
    let hca = endpoint.hca();
    let dma = &hca.dma;
    let mut segments = Vec::new();
    let number = endpoint.qp.number;
    let report = |error: DmaError| hca.findings.report_dma(queue(number), &error);
    let from_list = |list: &ReceiveList, number: u32, segments: &mut Vec<_>| {
        let taken = list.take(dma, segments).map_err(report).ok()??;
        if taken.limit_reached {
            hca.eqs.announce(LIMIT_EVENT, 0, &event_data(number));
        }
        Some((taken.index, list.stride()))
    };
    let ((wqe_counter, wqe_bytes), pd) = match &endpoint.qp.receives {
        ReceiveSource::Own(ring) => {
            let index = responder.consumer();
            let record = |error| hca.findings.report_doorbell_record(queue(number), &error);
            let producer = ring.receive_producer(dma).map_err(record).ok()?;
            if producer == index {
                return None;
            }
            ring.check_overrun(&hca.findings, number, producer, index);
            ring.receive_wqe(dma, index.into(), &mut segments)
                .map_err(report)
                .ok()?;
            responder.consume();
            ((index, ring.stride()), endpoint.parameters.pd)
        }
        ReceiveSource::Pool(rmp) => (from_list(&rmp.list, rmp.number, &mut segments)?, rmp.pd()),
        ReceiveSource::Xrc => {
            let srq = xrc_srq(endpoint.context, packet)?;
            (from_list(&srq.list, srq.number, &mut segments)?, srq.pd())
        }
        ReceiveSource::None => return None,
    };
    responder.account_receive_wqe(wqe_bytes);
    let room = segments.iter().map(|segment| u64::from(segment.byte_count.get())).sum();
    Some(Receive {
        wqe_counter,
        pd,
        segments,
        room,
    })
}

/// Calls `act` with the completion queue of the receive WQE for a packet, if there is one.
pub(super) fn with_cq(endpoint: &Endpoint<'_>, packet: &Packet, act: impl FnOnce(ReceiveCq<'_>)) {
    if let ReceiveSource::Xrc = endpoint.qp.receives {
        if let Some(srq) = xrc_srq(endpoint.context, packet) {
            let user_index = srq.context.lock().user_index();
            act(ReceiveCq {
                cq: &srq.cq,
                user_index,
            });
        }
    } else if let Some(cq) = &endpoint.qp.receive_cq {
        let user_index = endpoint.parameters.user_index;
        act(ReceiveCq { cq, user_index });
    }
}
