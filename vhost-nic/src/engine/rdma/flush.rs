//! Queue pairs in error: what is posted goes back to the guest, now and later.

use std::time::{Duration, Instant};

use mlx5_prm::queue_entry::{EventType, Syndrome};

use super::{Engine, completion, work};
use crate::hca::qp::{Incoming, Message, Messages, Parameters, Qp, ReceiveSource};
use crate::hca::scheduler::Task;
use crate::hca::srq::event_data;

/// How often a queue pair in error is looked at: receives are posted without a doorbell.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Gives back all that is posted, and comes again.
pub(super) fn run(engine: &Engine, qp: &Qp) {
    let parameters = qp.parameters();
    send_side(engine, qp, &parameters);
    receive_side(engine, qp, &parameters);
    engine
        .hca
        .scheduler
        .schedule_at(Instant::now() + LOOK_AGAIN, Task::Queue(qp.number));
}

fn send_side(engine: &Engine, qp: &Qp, parameters: &Parameters) {
    let requester = &mut *qp.requester.lock();
    if !qp.is_still(parameters.state) {
        return;
    }
    let flush = |message: &Message| {
        let opcode = completion::opcode(message);
        completion::send_failed(qp, parameters, opcode, message.index, Syndrome::WrFlush);
    };
    let flush_all = |messages: &mut Messages| {
        messages.iter().for_each(flush);
        messages.remove(messages.len());
    };
    flush_all(&mut requester.messages);
    requester.current = 0;
    let Some(ring) = &qp.send_queue else { return };
    let mut reader = work::Reader::new(&engine.hca.dma, ring, parameters.service, requester.fetched);
    if reader.look_at_all().is_err() {
        return;
    }
    while let Some((blocks, _)) = reader.fetch(requester.fetched, &mut requester.messages) {
        flush_all(&mut requester.messages);
        requester.fetched = requester.fetched.wrapping_add(blocks);
    }
}

fn receive_side(engine: &Engine, qp: &Qp, parameters: &Parameters) {
    let responder = &mut *qp.responder.lock();
    if !qp.is_still(parameters.state) {
        return;
    }
    let started = match responder.incoming.take() {
        Some(Incoming::Send { receive, .. }) => Some(receive),
        _ => None,
    };
    let spare = responder.spare.take();
    let Some(cq) = &qp.receive_cq else { return };
    for receive in started.into_iter().chain(spare) {
        completion::receive_failed(qp, cq, parameters.user_index, receive.wqe_counter, Syndrome::WrFlush);
    }
    match &qp.receives {
        ReceiveSource::Own(ring) => {
            let Ok(producer) = ring.receive_producer(&engine.hca.dma) else {
                return;
            };
            while responder.consumer != producer {
                let index = responder.consumer;
                completion::receive_failed(qp, cq, parameters.user_index, index, Syndrome::WrFlush);
                responder.consumer = index.wrapping_add(1);
            }
        }
        // Those of a shared queue stay there.
        ReceiveSource::Pool(_) | ReceiveSource::Xrc => {
            if !std::mem::replace(&mut responder.last_wqe_told, true) {
                engine
                    .hca
                    .eqs
                    .announce(EventType::SrqLastWqe, 0, &event_data(qp.number));
            }
        }
        ReceiveSource::None => {}
    }
}
