//! The receiving side of connections: requests in, in the order of their sequence numbers, and answers out.

use std::ops::ControlFlow;

use mlx5_prm::queue_entry::EventType;

use super::answer::{Answer, Answers, Read};
use super::execute::{Executor, Refused, Step, read_packets};
use super::{Engine, receive_queue};
use crate::hca::qp::{Incoming, Parameters, Qp, QpState, Resource, Responder, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::SuperPacket;
use crate::roce::opcode::Operation;
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// Takes requests, all of the same sender.
pub(super) fn receive(engine: &Engine, qp: &Qp, parameters: &Parameters, super_packets: &[&SuperPacket<'_>]) {
    if !matches!(
        parameters.state,
        QpState::ReadyToReceive | QpState::ReadyToSend | QpState::SendQueueDrained
    ) {
        return;
    }
    if parameters.service != service::XRC {
        return receive_as(engine, qp, parameters, super_packets);
    }
    for super_packet in super_packets {
        let of_srq = receive_queue::xrc_srq(engine, &super_packet.head).map(|srq| Parameters {
            // The queue pair has no domain of its own; keys are checked against the shared receive queue's (IBTA annex A14).
            pd: srq.pd(),
            ..parameters.clone()
        });
        receive_as(engine, qp, of_srq.as_ref().unwrap_or(parameters), &[super_packet]);
    }
}

fn receive_as(engine: &Engine, qp: &Qp, parameters: &Parameters, super_packets: &[&SuperPacket<'_>]) {
    let mut answers = Answers::default();
    {
        let responder = &mut *qp.responder.lock();
        if !qp.is_still(parameters.state) {
            return;
        }
        let mut executor = Executor::new(engine, qp, parameters);
        for super_packet in super_packets {
            if parameters.service == service::UC {
                unreliable(&mut executor, responder, super_packet);
            } else if reliable(&mut executor, responder, super_packet, &mut answers).is_break() {
                // In error it takes no more.
                break;
            }
        }
    }
    answers.send(engine, qp, parameters);
}

/// Takes requests of a reliable service. Breaks if the queue pair goes to error.
fn reliable(
    executor: &mut Executor<'_>,
    responder: &mut Responder,
    super_packet: &SuperPacket<'_>,
    answers: &mut Answers,
) -> ControlFlow<()> {
    let parameters = executor.parameters;
    let mut each = |executor: &mut Executor<'_>, responder: &mut Responder| {
        let mut packets = super_packet.split();
        packets.try_for_each(|packet| reliable(executor, responder, &packet, answers))
    };
    let head = &super_packet.head;
    let bth = &head.headers.bth;
    let (psn, packets) = (bth.psn(), super_packet.packets());
    if packets > 1 && psn != responder.expected {
        return each(executor, responder);
    }
    if psn.is_before(responder.expected) {
        parameters.count(QueueCounter::DuplicateRequest);
        answers.push(duplicate(responder, head, parameters));
        return ControlFlow::Continue(());
    }
    if psn.is_after(responder.expected) {
        parameters.count(QueueCounter::OutOfSequence);
        // Reported once; what follows is silence until the gap is filled.
        if !std::mem::replace(&mut responder.gap_reported, true) {
            answers.push(Answer::Acknowledge {
                syndrome: Syndrome::Nak(Nak::PsnSequence),
                psn: responder.expected,
                msn: responder.msn,
            });
        }
        return ControlFlow::Continue(());
    }
    responder.gap_reported = false;
    match executor.execute(responder, super_packet) {
        Step::Split => each(executor, responder),
        Step::Done(answer) => {
            responder.expected += match head.opcode.operation() {
                Operation::ReadRequest => read_packets(head, parameters),
                _ => packets,
            };
            answers.push(match answer {
                Answer::None if bth.ack_request() => Answer::Acknowledge {
                    syndrome: Syndrome::ACK,
                    psn: psn + (packets - 1),
                    msn: responder.msn,
                },
                answer => answer,
            });
            ControlFlow::Continue(())
        }
        Step::NoReceive => {
            parameters.count(QueueCounter::OutOfBuffer);
            // What comes behind is out of order, and known to be.
            responder.gap_reported = true;
            answers.push(Answer::Acknowledge {
                syndrome: Syndrome::Rnr(parameters.rnr_timer),
                psn,
                msn: responder.msn,
            });
            ControlFlow::Continue(())
        }
        Step::Refused(Refused { nak, event }) => {
            match event {
                Some(EventType::WqInvalidRequestError) => parameters.count(QueueCounter::RespRemoteInvalidRequest),
                Some(EventType::WqAccessError) => parameters.count(QueueCounter::RespRemoteAccessErrors),
                // The completion of the receive is what is counted.
                _ => {}
            }
            // A receive that it has begun to fill is flushed.
            executor.fail(event);
            answers.push(Answer::Acknowledge {
                syndrome: Syndrome::Nak(nak),
                psn,
                msn: responder.msn,
            });
            ControlFlow::Break(())
        }
    }
}

/// A request that was carried out before.
fn duplicate(responder: &Responder, packet: &Packet, parameters: &Parameters) -> Answer {
    let psn = packet.headers.bth.psn();
    match packet.opcode.operation() {
        Operation::ReadRequest => match packet.headers.reth {
            Some(reth)
                if responder
                    .resources
                    .iter()
                    .any(|resource| repeats(resource, psn, packet, parameters)) =>
            {
                Answer::Read(Read {
                    psn,
                    msn: responder.msn,
                    address: reth.virtual_address.get(),
                    rkey: reth.rkey.get(),
                    length: reth.dma_length.get() as usize,
                })
            }
            _ => Answer::None,
        },
        Operation::CompareSwap | Operation::FetchAdd => {
            // Never carried out twice: what it found is kept.
            let found = responder.resources.iter().find(|resource| resource.psn == psn);
            match found.and_then(|resource| resource.original) {
                Some(original) => Answer::Atomic {
                    psn,
                    msn: responder.msn,
                    original,
                },
                None => Answer::None,
            }
        }
        _ => Answer::Acknowledge {
            syndrome: Syndrome::ACK,
            psn: responder.expected - 1,
            msn: responder.msn,
        },
    }
}

/// Whether a read asks for the end of what was asked for before (IBTA 9.7.5.1.3).
fn repeats(resource: &Resource, psn: Psn, packet: &Packet, parameters: &Parameters) -> bool {
    let end = resource.psn + resource.packets;
    resource.original.is_none()
        && psn.is_within(resource.psn, end - 1)
        && psn.distance(end).unsigned_abs() == read_packets(packet, parameters)
}

/// An unreliable message: what does not fit is dropped, and the message with it.
fn unreliable(executor: &mut Executor<'_>, responder: &mut Responder, super_packet: &SuperPacket<'_>) {
    let head = &super_packet.head;
    let psn = head.headers.bth.psn();
    let begins = head.opcode.position().begins();
    let cut = psn != responder.expected || begins;
    if cut && let Some(Incoming::Send { receive, .. }) = responder.incoming.take() {
        // It is used for the next message, from its beginning.
        responder.spare = Some(receive);
    }
    responder.expected = psn + super_packet.packets();
    if begins {
        responder.skipping = false;
    } else if cut {
        responder.skipping = true;
    }
    if responder.skipping {
        return;
    }
    match executor.execute(responder, super_packet) {
        Step::Done(_) => {}
        Step::Split => {
            responder.expected = psn;
            for packet in super_packet.split() {
                unreliable(executor, responder, &packet);
            }
        }
        step @ (Step::NoReceive | Step::Refused(_)) => {
            if let Step::NoReceive = step {
                executor.parameters.count(QueueCounter::OutOfBuffer);
            }
            if let Some(Incoming::Send { receive, .. }) = responder.incoming.take() {
                responder.spare = Some(receive);
            }
            responder.skipping = true;
        }
    }
}
