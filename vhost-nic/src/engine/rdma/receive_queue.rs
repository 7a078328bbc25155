//! Source of a queue pair's receive WQEs, and where they complete.

use std::sync::Arc;

use mlx5_prm::queue_entry::EventType;
use mlx5_prm::wqe::DataSegment;

use super::super::context::Context;
use super::completion::ReceiveCq;
use super::endpoint::Endpoint;
use crate::hca::event::{EventQueue, event_data};
use crate::hca::nic_finding::queue;
use crate::hca::qp::{Receive, ReceiveSource, Responder};
use crate::hca::srq::{LIMIT_EVENT, ReceiveList, TakeError, XrcSrq};
use crate::hca::wq::WorkQueue;
use crate::roce::packet::Packet;

/// The shared receive queue that an XRC packet names.
pub(super) fn xrc_srq(context: &Context, packet: &Packet) -> Option<Arc<XrcSrq>> {
    context.hca.xrc_srqs.get(packet.headers.xrc?.srqn())
}

/// The receive queue takes no WQEs any more: its doorbell record cannot be read. The queue pair goes to the error state
/// with a local work queue catastrophic error (IBTA 11.6.3.2).
pub(super) struct Broken;

/// Takes a receive WQE, if one is posted.
pub(super) fn take(
    endpoint: &Endpoint<'_>,
    responder: &mut Responder,
    packet: &Packet,
) -> Result<Option<Receive>, Broken> {
    if let Some(spare) = responder.take_spare() {
        return Ok(Some(spare));
    }
    let mut segments = Vec::new();
    let (posted, pd) = match &endpoint.qp.receives {
        ReceiveSource::Own(ring) => (
            take_own(endpoint, responder, ring, &mut segments)?,
            endpoint.parameters.pd,
        ),
        ReceiveSource::Pool(rmp) => (take_shared(endpoint, &rmp.list, rmp.number, &mut segments)?, rmp.pd()),
        ReceiveSource::Xrc => match xrc_srq(endpoint.context, packet) {
            Some(srq) => (take_shared(endpoint, &srq.list, srq.number, &mut segments)?, srq.pd()),
            None => return Ok(None),
        },
        ReceiveSource::None => return Ok(None),
    };
    let Some((wqe_counter, wqe_bytes)) = posted else {
        return Ok(None);
    };
    responder.account_receive_wqe(wqe_bytes);
    let room = segments.iter().map(|segment| u64::from(segment.byte_count.get())).sum();
    Ok(Some(Receive {
        wqe_counter,
        pd,
        segments,
        room,
    }))
}

/// Takes a WQE of the queue pair's own ring. Returns its index and bytes.
fn take_own(
    endpoint: &Endpoint<'_>,
    responder: &mut Responder,
    ring: &WorkQueue,
    segments: &mut Vec<DataSegment>,
) -> Result<Option<(u16, usize)>, Broken> {
    let (hca, number) = (endpoint.hca(), endpoint.qp.number);
    let index = responder.consumer();
    let producer = ring.receive_producer(&hca.dma).map_err(|error| {
        hca.findings.report_doorbell_record(queue(number), &error);
        Broken
    })?;
    if producer == index {
        return Ok(None);
    }
    ring.check_overrun(&hca.findings, number, producer, index);
    if let Err(error) = ring.receive_wqe(&hca.dma, index.into(), segments) {
        hca.findings.report_dma(queue(number), &error);
        return Ok(None);
    }
    responder.consume();
    Ok(Some((index, ring.stride())))
}

/// Takes a WQE of a shared list. Returns its index and bytes.
fn take_shared(
    endpoint: &Endpoint<'_>,
    list: &ReceiveList,
    number: u32,
    segments: &mut Vec<DataSegment>,
) -> Result<Option<(u16, usize)>, Broken> {
    let hca = endpoint.hca();
    let announce = |event| hca.eqs.announce(event, 0, &event_data(EventQueue::Qp, number));
    let object = queue(endpoint.qp.number);
    match list.take(&hca.dma, segments) {
        Ok(taken) => Ok(taken.map(|taken| {
            if taken.limit_reached {
                announce(LIMIT_EVENT);
            }
            (taken.index, list.stride())
        })),
        Err(TakeError::Wqe(error)) => {
            hca.findings.report_dma(object, &error);
            Ok(None)
        }
        Err(TakeError::Record(error)) => {
            hca.findings.report_doorbell_record(object, &error);
            announce(EventType::SrqCatastrophicError);
            Err(Broken)
        }
        Err(TakeError::Failed) => Err(Broken),
    }
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
