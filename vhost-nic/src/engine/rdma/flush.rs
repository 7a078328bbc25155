//! Queue pairs in the error state: posted WQEs are completed as flushed.

use std::time::Duration;

use mlx5_prm::queue_entry::{EventType, Syndrome};

use super::completion::{self, ReceiveCq};
use super::endpoint::Endpoint;
use super::receive_queue;
use super::send_wqe::{Reader, WqeOrigin};
use crate::hca::nic_event::Timer;
use crate::hca::qp::{Message, ReceiveSource};
use crate::net::FrameNumber;

/// Interval at which a queue pair in the error state is checked: receives are posted without a doorbell.
const INTERVAL: Duration = Duration::from_millis(5);

/// Flushes all posted WQEs and schedules the next check.
pub(super) fn run(endpoint: &Endpoint<'_>) {
    flush_sends(endpoint);
    flush_receives(endpoint);
    endpoint.repeat_after(INTERVAL, Timer::Flush);
}

fn flush_sends(endpoint: &Endpoint<'_>) {
    let requester = &mut *endpoint.qp.requester.lock();
    if !endpoint.is_current() {
        return;
    }
    let flush = |message: &Message| completion::send_failed(endpoint, message, Syndrome::WrFlush);
    requester.flush(flush);
    let Some(ring) = &endpoint.qp.send_queue else { return };
    let service = endpoint.parameters.service;
    let mut reader = Reader::new(&endpoint.hca().dma, ring, service, requester.fetched());
    if reader.look_at_all().is_err() {
        return;
    }
    while reader.is_posted(requester.fetched()) {
        let (blocks, origin) = reader.read(requester.append());
        if origin == WqeOrigin::Nowhere {
            // Where the next one begins is not known. The next check reads it again.
            requester.withdraw();
            return;
        }
        let is_completed = requester.take_unread();
        requester.post(blocks, 0);
        requester.flush(|message| {
            if !is_completed {
                flush(message);
            }
        });
    }
}

fn flush_receives(endpoint: &Endpoint<'_>) {
    let qp = endpoint.qp;
    let responder = &mut *qp.responder.lock();
    if !endpoint.is_current() {
        return;
    }
    let receives = responder.take_receives();
    for receive in receives {
        let (counter, srq) = (receive.wqe_counter, receive.srq.as_ref());
        // A CQ in error takes no completions of flushed WQEs either.
        let _ = receive_queue::complete(endpoint, FrameNumber::default(), counter, srq, |to| {
            completion::receive_failed(qp, to, counter, Syndrome::WrFlush)
        });
    }
    let Some(cq) = &qp.receive_cq else { return };
    let flush = |wqe_counter| {
        let user_index = endpoint.parameters.user_index;
        let _ = completion::receive_failed(qp, ReceiveCq { cq, user_index }, wqe_counter, Syndrome::WrFlush);
    };
    match &qp.receives {
        ReceiveSource::Own(ring) => {
            let Ok(producer) = ring.look_at_receive_producer(&endpoint.hca().dma) else {
                return;
            };
            while responder.consumer() != producer {
                flush(responder.consumer());
                responder.consume();
            }
        }
        // WQEs of a shared receive queue stay in it.
        ReceiveSource::Pool(_) | ReceiveSource::Xrc => {
            if !responder.report_last_wqe() {
                endpoint.announce(EventType::SrqLastWqe);
            }
        }
        ReceiveSource::None => {}
    }
}
