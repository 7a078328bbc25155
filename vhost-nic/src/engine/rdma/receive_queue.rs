//! Source of a queue pair's receive WQEs, and where they complete.

use std::sync::Arc;

use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::DataSegment;

use super::super::context::Context;
use super::completion::{self, ReceiveCq};
use super::endpoint::Endpoint;
use crate::hca::cq::{CqInError, Posted};
use crate::hca::event::{EventQueue, event_data};
use crate::hca::nic_finding::queue;
use crate::hca::qp::{Parameters, Receive, ReceiveSource, Responder};
use crate::hca::srq::{LIMIT_EVENT, ReceiveList, TakeError, XrcSrq};
use crate::hca::wq::WorkQueue;
use crate::net::{FrameNumber, SuperPacket};
use crate::roce::packet::Packet;

/// The shared receive queue that an XRC packet names in its XRCETH.
#[derive(Debug)]
pub(super) enum XrcQueue {
    /// No queue has this number, or the packet has no XRCETH.
    Absent,
    /// Outside the queue pair's XRC domain.
    Foreign,
    /// In the queue pair's XRC domain.
    Own(Arc<XrcSrq>),
}

impl XrcQueue {
    /// The queue that a packet for a queue pair with these parameters names.
    pub fn of(context: &Context, parameters: &Parameters, packet: &Packet) -> Self {
        let number = packet.headers.xrc.map(|header| header.srqn());
        match number.and_then(|number| context.hca.xrc_srqs.get(number)) {
            None => Self::Absent,
            Some(srq) if srq.xrcd() != parameters.xrcd => Self::Foreign,
            Some(srq) => Self::Own(srq),
        }
    }

    /// The queue, if the queue pair may use it.
    pub fn own(&self) -> Option<&Arc<XrcSrq>> {
        match self {
            Self::Own(srq) => Some(srq),
            Self::Absent | Self::Foreign => None,
        }
    }
}

/// Receives cannot go on, by a fault on this side. The queue pair goes to the error state, and the requester of a
/// reliable service gets a NAK (remote operational error, IBTA 9.9.3).
pub(super) struct Broken {
    /// The event of the error state, if no completion reports it.
    pub event: Option<EventType>,
}

impl Broken {
    /// A local work queue catastrophic error (IBTA 11.6.3.2).
    const CATASTROPHE: Self = Self {
        event: Some(EventType::WqCatastrophicError),
    };
}

/// Takes a receive WQE for a message that begins with `first`, if one is posted; that of an XRC message from `xrc`.
pub(super) fn take(
    endpoint: &Endpoint<'_>,
    responder: &mut Responder,
    first: &SuperPacket<'_>,
    xrc: &XrcQueue,
) -> Result<Option<Receive>, Broken> {
    if let Some(spare) = responder.take_spare() {
        return Ok(Some(spare));
    }
    let mut segments = Vec::new();
    let (posted, pd) = match &endpoint.qp.receives {
        ReceiveSource::Own(ring) => (
            take_own(endpoint, responder, ring, first, &mut segments)?,
            endpoint.parameters.pd,
        ),
        ReceiveSource::Pool(rmp) => (take_shared(endpoint, &rmp.list, rmp.number, &mut segments)?, rmp.pd()),
        ReceiveSource::Xrc => match xrc.own() {
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
        srq: xrc.own().cloned(),
    }))
}

/// Takes a WQE of the queue pair's own ring. Returns its index and bytes.
fn take_own(
    endpoint: &Endpoint<'_>,
    responder: &mut Responder,
    ring: &WorkQueue,
    first: &SuperPacket<'_>,
    segments: &mut Vec<DataSegment>,
) -> Result<Option<(u16, usize)>, Broken> {
    let (hca, number) = (endpoint.hca(), endpoint.qp.number);
    let index = responder.consumer();
    let producer = ring.receive_producer(&hca.dma).map_err(|error| {
        hca.findings.report_doorbell_record(queue(number), &error);
        Broken::CATASTROPHE
    })?;
    if producer == index {
        return Ok(None);
    }
    ring.check_overrun(&hca.findings, number, producer, index);
    if let Err(error) = ring.receive_wqe(&hca.dma, index.into(), segments) {
        hca.findings.report_dma(queue(number), &error);
        responder.consume();
        let failed = |to: ReceiveCq<'_>| completion::receive_failed(endpoint.qp, to, index, Syndrome::LocalQpOperation);
        complete(endpoint, first.last_number(), index, None, failed)?;
        return Err(Broken { event: None });
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
    let findings = &endpoint.hca().findings;
    let object = queue(endpoint.qp.number);
    match list.take(&endpoint.hca().dma, segments) {
        Ok(taken) => Ok(taken.map(|taken| {
            list.check_overrun(findings, number, &taken);
            if taken.limit_reached {
                announce(endpoint, LIMIT_EVENT, number);
            }
            (taken.index, list.stride())
        })),
        Err(TakeError::Wqe(error)) => {
            findings.report_dma(object, &error);
            announce(endpoint, EventType::SrqCatastrophicError, number);
            Err(Broken::CATASTROPHE)
        }
        Err(TakeError::Record(error)) => {
            findings.report_doorbell_record(object, &error);
            announce(endpoint, EventType::SrqCatastrophicError, number);
            Err(Broken::CATASTROPHE)
        }
        Err(TakeError::Failed) => Err(Broken::CATASTROPHE),
    }
}

/// Announces an event of a shared receive queue.
fn announce(endpoint: &Endpoint<'_>, event: EventType, number: u32) {
    let data = event_data(EventQueue::Qp, number);
    endpoint.hca().eqs.announce(event, 0, &data);
}

/// Completes a receive WQE that the packet `last` ends, taken from `srq` if it is one of XRC: `post` posts to the
/// completion queue, if any.
pub(super) fn complete(
    endpoint: &Endpoint<'_>,
    last: FrameNumber,
    wqe_counter: u16,
    srq: Option<&Arc<XrcSrq>>,
    post: impl FnOnce(ReceiveCq<'_>) -> Posted,
) -> Result<(), Broken> {
    let posted = if let Some(srq) = srq {
        let still = endpoint.hca().xrc_srqs.get(srq.number);
        // Its CQ may be gone with it.
        if !still.is_some_and(|still| Arc::ptr_eq(&still, srq)) {
            return Ok(());
        }
        let user_index = srq.context.lock().user_index();
        let posted = post(ReceiveCq {
            cq: &srq.cq,
            user_index,
        });
        // The queue that completes there is the shared one.
        if posted.is_err() && srq.list.fail() {
            announce(endpoint, EventType::SrqCatastrophicError, srq.number);
        }
        posted
    } else if let Some(cq) = &endpoint.qp.receive_cq {
        let user_index = endpoint.parameters.user_index;
        post(ReceiveCq { cq, user_index })
    } else {
        return Ok(());
    };
    endpoint.note_received(last, wqe_counter, posted.ok().flatten());
    posted.map(|_| ()).map_err(|CqInError| Broken::CATASTROPHE)
}
