//! The receiving side of connections: requests in, answers out.

use std::ops::ControlFlow;

use mlx5_prm::queue_entry::{Cqe, EventType, Syndrome as CqeSyndrome};

use super::answer::{Answer, Answers, Read};
use super::completion::{self, Arrival};
use super::memory::Reach;
use super::{Engine, fail, memory, receive_queue};
use crate::hca::mkey::{self, Access};
use crate::hca::qp::{Incoming, Parameters, Qp, QpState, Receive, Resource, Responder, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::Train;
use crate::roce::opcode::{Operation, Position};
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// Longest message that a request may name (IBTA 9.7.4.1.3).
const MAX_LENGTH: u32 = 1 << 31;

/// A request that is refused.
struct Refused {
    nak: Nak,
    /// The queue pair goes to error, and the guest is told so.
    event: Option<EventType>,
}

const INVALID: Refused = Refused {
    nak: Nak::InvalidRequest,
    event: Some(EventType::WqInvalidRequestError),
};
const NO_ACCESS: Refused = Refused {
    nak: Nak::RemoteAccess,
    event: Some(EventType::WqAccessError),
};

/// How a request goes on.
enum Step {
    /// It is carried out.
    Done(Answer),
    /// Not all of its packets can be carried out: each is looked at by itself. So far nothing has changed but memory that is written again.
    Split,
    /// There is no receive for it.
    NoReceive,
    /// It is refused.
    Refused(Refused),
}

/// Takes requests, all of the same sender.
pub(super) fn receive(engine: &Engine, qp: &Qp, parameters: &Parameters, trains: &[&Train<'_>]) {
    if !matches!(
        parameters.state,
        QpState::ReadyToReceive | QpState::ReadyToSend | QpState::SendQueueDrained
    ) {
        return;
    }
    if parameters.service != service::XRC {
        return receive_as(engine, qp, parameters, trains);
    }
    for train in trains {
        let of_srq = receive_queue::xrc_srq(engine, &train.head).map(|srq| Parameters {
            // The queue pair has no domain of its own; keys are checked against the shared receive queue's (IBTA annex A14).
            pd: srq.pd(),
            ..parameters.clone()
        });
        receive_as(engine, qp, of_srq.as_ref().unwrap_or(parameters), &[train]);
    }
}

fn receive_as(engine: &Engine, qp: &Qp, parameters: &Parameters, trains: &[&Train<'_>]) {
    let mut answers = Answers::default();
    {
        let responder = &mut *qp.responder.lock();
        if !qp.is_still(parameters.state) {
            return;
        }
        let mut reach = Reach::new(engine);
        for train in trains {
            if parameters.service == service::UC {
                unreliable(engine, qp, parameters, responder, train, &mut reach);
            } else if reliable(engine, qp, parameters, responder, train, &mut reach, &mut answers).is_break() {
                // In error it takes no more.
                break;
            }
        }
    }
    answers.send(engine, qp, parameters);
}

/// Takes requests of a reliable service. Breaks if the queue pair goes to error.
fn reliable(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    train: &Train<'_>,
    reach: &mut Reach<'_>,
    answers: &mut Answers,
) -> ControlFlow<()> {
    let mut each = |responder: &mut Responder, reach: &mut Reach<'_>| {
        let mut packets = train.split();
        packets.try_for_each(|packet| reliable(engine, qp, parameters, responder, &packet, reach, answers))
    };
    let head = &train.head;
    let bth = &head.headers.bth;
    let (psn, packets) = (bth.psn(), train.packets());
    if packets > 1 && psn != responder.expected {
        return each(responder, reach);
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
    match execute(engine, qp, parameters, responder, train, reach) {
        Step::Split => each(responder, reach),
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
            reach.let_go();
            fail(engine, qp, event);
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

fn read_packets(packet: &Packet, parameters: &Parameters) -> u32 {
    let length = packet.headers.reth.map_or(0, |reth| reth.dma_length.get());
    parameters.packets(length as usize)
}

/// Carries out what packets ask for, all of it or nothing.
fn execute(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    train: &Train<'_>,
    reach: &mut Reach<'_>,
) -> Step {
    if train.head.opcode.operation() != Operation::Write {
        reach.let_go();
    }
    let position = train.head.opcode.position();
    let (length, mtu) = (train.head.payload_length, parameters.mtu);
    let length_fits = parameters.packets(length) == train.packets()
        && match position {
            Position::First | Position::Middle => length > 0 && length.is_multiple_of(mtu),
            Position::Last => length > 0,
            Position::Only => true,
        };
    let under_way = match (&responder.incoming, train.head.opcode.operation()) {
        (None, _) => position.begins(),
        (Some(Incoming::Send { .. }), Operation::Send) | (Some(Incoming::Write { .. }), Operation::Write) => {
            !position.begins()
        }
        _ => false,
    };
    let step = match train.head.opcode.operation() {
        _ if !length_fits || !under_way => Step::Refused(INVALID),
        Operation::Send => execute_send(engine, qp, parameters, responder, train),
        Operation::Write => execute_write(engine, qp, parameters, responder, train, reach),
        Operation::ReadRequest => execute_read(engine, qp, parameters, responder, &train.head),
        Operation::CompareSwap | Operation::FetchAdd => execute_atomic(engine, qp, parameters, responder, &train.head),
        _ => Step::Refused(INVALID),
    };
    if train.packets() > 1 && !matches!(step, Step::Done(_)) {
        // As if it had not begun.
        if position.begins()
            && under_way
            && let Some(Incoming::Send { receive, .. }) = responder.incoming.take()
        {
            responder.spare = Some(receive);
        }
        return Step::Split;
    }
    if length_fits && under_way {
        match train.head.opcode.operation() {
            Operation::Write if position.begins() => parameters.count(QueueCounter::RxWriteRequests),
            Operation::ReadRequest => parameters.count(QueueCounter::RxReadRequests),
            Operation::CompareSwap | Operation::FetchAdd => parameters.count(QueueCounter::RxAtomicRequests),
            _ => {}
        }
    }
    step
}

fn execute_send(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    train: &Train<'_>,
) -> Step {
    let (packet, payload) = (&train.head, &train.payload);
    let position = packet.opcode.position();
    if position.begins() {
        let Some(receive) = receive_queue::take(engine, qp, parameters, responder, packet) else {
            return Step::NoReceive;
        };
        responder.incoming = Some(Incoming::Send { receive, received: 0 });
    }
    let Some(Incoming::Send { receive, received }) = &mut responder.incoming else {
        return Step::Refused(INVALID);
    };
    let refused = |syndrome: CqeSyndrome, nak: Nak, receive: &Receive| {
        receive_queue::with_cq(engine, qp, parameters, packet, |cq, user_index| {
            completion::receive_failed(qp, cq, user_index, receive.wqe_counter, syndrome);
        });
        Step::Refused(Refused { nak, event: None })
    };
    let several = train.packets() > 1;
    let length = u64::from(*received) + payload.len() as u64;
    if length > receive.room {
        if several {
            return Step::Split;
        }
        if parameters.service == service::UC {
            // Lost without a word; the receive is there for the next message (IBTA 9.9.3).
            return Step::Refused(INVALID);
        }
        let step = refused(CqeSyndrome::LocalLength, Nak::InvalidRequest, receive);
        responder.incoming = None;
        return step;
    }
    // What is short enough goes into the completion, as a whole or not at all.
    let inline = position == Position::Only && !payload.is_empty() && payload.len() <= parameters.responder_inline;
    let mut data = Vec::new();
    let stored = if inline {
        payload.append_to(&mut data).map_err(|_| memory::Unreachable)
    } else {
        let offset = *received as usize;
        memory::scatter_receive(engine, qp, parameters, receive, offset, payload)
    };
    if stored.is_err() {
        if several {
            return Step::Split;
        }
        let step = refused(CqeSyndrome::LocalProtection, Nak::RemoteOperational, receive);
        responder.incoming = None;
        // Whatever the service: it is the fault of this side.
        fail(engine, qp, None);
        return step;
    }
    if !position.ends() {
        *received += payload.len() as u32;
        return Step::Done(Answer::None);
    }
    let invalidated = packet.headers.invalidate.map(|header| header.rkey.get());
    if let Some(key) = invalidated {
        let accessor = memory::accessor(qp, parameters);
        if mkey::invalidate(&engine.hca.mkeys, key, accessor, true).is_err() {
            return Step::Refused(NO_ACCESS);
        }
    }
    let arrival = Arrival {
        write: false,
        immediate: packet
            .headers
            .immediate
            .map(|header| u32::from_be_bytes(header.immediate)),
        invalidated,
        solicited: packet.headers.bth.solicited(),
        length: length as u32,
    };
    receive_queue::with_cq(engine, qp, parameters, packet, |cq, user_index| {
        let cqe: Cqe = completion::arrived(qp, user_index, receive, arrival);
        if inline {
            cq.post_with_data(cqe, &data)
        } else {
            cq.post(cqe)
        }
    });
    responder.incoming = None;
    responder.msn = responder.msn.wrapping_add(1) & 0xff_ffff;
    Step::Done(Answer::None)
}

fn execute_write(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    train: &Train<'_>,
    reach: &mut Reach<'_>,
) -> Step {
    let (packet, payload) = (&train.head, &train.payload);
    let position = packet.opcode.position();
    if position.begins() {
        let Some(reth) = packet.headers.reth else {
            return Step::Refused(INVALID);
        };
        if !parameters.remote_write || reth.dma_length.get() > MAX_LENGTH {
            return Step::Refused(INVALID);
        }
        let (address, rkey, length) = (reth.virtual_address.get(), reth.rkey.get(), reth.dma_length.get());
        // All of it or nothing; what is there as a whole is checked as it is written. Where nothing is written, the key means nothing (C9-88).
        let whole = train.packets() == 1 && position.ends();
        let check = || {
            let length = length as usize;
            memory::check(engine, qp, parameters, rkey, address, length, Access::RemoteWrite)
        };
        if !whole && check().is_err() {
            return Step::Refused(NO_ACCESS);
        }
        responder.incoming = Some(Incoming::Write {
            address,
            rkey,
            length,
            received: 0,
        });
    }
    let Some(Incoming::Write {
        address,
        rkey,
        length,
        received,
    }) = &mut responder.incoming
    else {
        return Step::Refused(INVALID);
    };
    let so_far = u64::from(*received) + payload.len() as u64;
    let complete = so_far == u64::from(*length);
    if so_far > u64::from(*length) || position.ends() != complete {
        return Step::Refused(INVALID);
    }
    let at = address.wrapping_add(u64::from(*received));
    if !payload.is_empty() {
        let accessor = memory::accessor(qp, parameters);
        if reach.write(accessor, *rkey, at, payload, Access::RemoteWrite).is_err() {
            return Step::Refused(NO_ACCESS);
        }
    }
    let length = *length;
    if let Some(header) = packet.headers.immediate {
        reach.let_go();
        let Some(receive) = receive_queue::take(engine, qp, parameters, responder, packet) else {
            if position.begins() {
                responder.incoming = None;
            }
            return Step::NoReceive;
        };
        let arrival = Arrival {
            write: true,
            immediate: Some(u32::from_be_bytes(header.immediate)),
            invalidated: None,
            solicited: packet.headers.bth.solicited(),
            length,
        };
        receive_queue::with_cq(engine, qp, parameters, packet, |cq, user_index| {
            cq.post(completion::arrived(qp, user_index, &receive, arrival));
        });
    }
    if position.ends() {
        responder.incoming = None;
        responder.msn = responder.msn.wrapping_add(1) & 0xff_ffff;
    } else if let Some(Incoming::Write { received, .. }) = &mut responder.incoming {
        *received += payload.len() as u32;
    }
    Step::Done(Answer::None)
}

fn remember(parameters: &Parameters, responder: &mut Responder, resource: Resource) {
    while responder.resources.len() >= parameters.max_resources {
        responder.resources.pop_front();
    }
    responder.resources.push_back(resource);
}

fn execute_read(engine: &Engine, qp: &Qp, parameters: &Parameters, responder: &mut Responder, packet: &Packet) -> Step {
    let Some(reth) = packet.headers.reth else {
        return Step::Refused(INVALID);
    };
    let (address, rkey, length) = (reth.virtual_address.get(), reth.rkey.get(), reth.dma_length.get());
    if !parameters.remote_read || length > MAX_LENGTH {
        return Step::Refused(INVALID);
    }
    let allowed = memory::check(
        engine,
        qp,
        parameters,
        rkey,
        address,
        length as usize,
        Access::RemoteRead,
    );
    if length > 0 && allowed.is_err() {
        return Step::Refused(NO_ACCESS);
    }
    let psn = packet.headers.bth.psn();
    remember(
        parameters,
        responder,
        Resource {
            psn,
            packets: read_packets(packet, parameters),
            original: None,
        },
    );
    responder.msn = responder.msn.wrapping_add(1) & 0xff_ffff;
    Step::Done(Answer::Read(Read {
        psn,
        msn: responder.msn,
        address,
        rkey,
        length: length as usize,
    }))
}

fn execute_atomic(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    packet: &Packet,
) -> Step {
    let Some(atomic) = packet.headers.atomic else {
        return Step::Refused(INVALID);
    };
    let address = atomic.virtual_address.get();
    if !parameters.remote_atomic || !address.is_multiple_of(8) {
        return Step::Refused(INVALID);
    }
    let (operand, compare) = (atomic.swap_or_add.get(), atomic.compare.get());
    let swap = packet.opcode.operation() == Operation::CompareSwap;
    let found = memory::atomic(engine, qp, parameters, atomic.rkey.get(), address, |value| match swap {
        true => (value == compare).then_some(operand),
        false => Some(value.wrapping_add(operand)),
    });
    let Ok(original) = found else {
        return Step::Refused(NO_ACCESS);
    };
    let psn = packet.headers.bth.psn();
    remember(
        parameters,
        responder,
        Resource {
            psn,
            packets: 1,
            original: Some(original),
        },
    );
    responder.msn = responder.msn.wrapping_add(1) & 0xff_ffff;
    Step::Done(Answer::Atomic {
        psn,
        msn: responder.msn,
        original,
    })
}

/// An unreliable message: what does not fit is dropped, and the message with it.
fn unreliable(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    responder: &mut Responder,
    train: &Train<'_>,
    reach: &mut Reach<'_>,
) {
    let head = &train.head;
    let psn = head.headers.bth.psn();
    let begins = head.opcode.position().begins();
    let cut = psn != responder.expected || begins;
    if cut && let Some(Incoming::Send { receive, .. }) = responder.incoming.take() {
        // It is used for the next message, from its beginning.
        responder.spare = Some(receive);
    }
    responder.expected = psn + train.packets();
    if begins {
        responder.skipping = false;
    } else if cut {
        responder.skipping = true;
    }
    if responder.skipping {
        return;
    }
    match execute(engine, qp, parameters, responder, train, reach) {
        Step::Done(_) => {}
        Step::Split => {
            responder.expected = psn;
            for packet in train.split() {
                unreliable(engine, qp, parameters, responder, &packet, reach);
            }
        }
        step @ (Step::NoReceive | Step::Refused(_)) => {
            if let Step::NoReceive = step {
                parameters.count(QueueCounter::OutOfBuffer);
            }
            if let Some(Incoming::Send { receive, .. }) = responder.incoming.take() {
                responder.spare = Some(receive);
            }
            responder.skipping = true;
        }
    }
}
