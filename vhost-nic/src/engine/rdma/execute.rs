//! What requests ask for, carried out in the guest's memory and queues.

use mlx5_prm::queue_entry::{Cqe, EventType, Syndrome as CqeSyndrome};

use super::answer::{Answer, Read};
use super::completion::{self, Arrival};
use super::memory::AccessContext;
use super::{Engine, fail, memory, receive_queue};
use crate::hca::mkey::{self, Access};
use crate::hca::qp::{Incoming, Parameters, Qp, Receive, Resource, Responder, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::SuperPacket;
use crate::roce::opcode::{Operation, Position};
use crate::roce::packet::Packet;
use crate::roce::syndrome::Nak;

/// Longest message that a request may name (IBTA 9.7.4.1.3).
const MAX_LENGTH: u32 = 1 << 31;

/// A request that is refused.
pub(super) struct Refused {
    pub(super) nak: Nak,
    /// The queue pair goes to error, and the guest is told so.
    pub(super) event: Option<EventType>,
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
pub(super) enum Step {
    /// It is carried out.
    Done(Answer),
    /// Not all of its packets can be carried out: each is looked at by itself. So far nothing has changed but memory that is written again.
    Split,
    /// There is no receive for it.
    NoReceive,
    /// It is refused.
    Refused(Refused),
}

/// Carries out the requests of a burst for a queue pair.
pub(super) struct Executor<'a> {
    engine: &'a Engine,
    qp: &'a Qp,
    pub(super) parameters: &'a Parameters,
    reach: AccessContext<'a>,
}

impl<'a> Executor<'a> {
    pub(super) fn new(engine: &'a Engine, qp: &'a Qp, parameters: &'a Parameters) -> Self {
        Self {
            engine,
            qp,
            parameters,
            reach: AccessContext::new(engine),
        }
    }

    /// The queue pair goes to error.
    pub(super) fn fail(&mut self, event: Option<EventType>) {
        self.reach.let_go();
        fail(self.engine, self.qp, event);
    }

    /// Carries out what packets ask for, all of it or nothing.
    pub(super) fn execute(&mut self, responder: &mut Responder, super_packet: &SuperPacket<'_>) -> Step {
        let parameters = self.parameters;
        if super_packet.head.opcode.operation() != Operation::Write {
            self.reach.let_go();
        }
        let position = super_packet.head.opcode.position();
        let (length, mtu) = (super_packet.head.payload_length, parameters.mtu);
        let length_fits = parameters.packets(length) == super_packet.packets()
            && match position {
                Position::First | Position::Middle => length > 0 && length.is_multiple_of(mtu),
                Position::Last => length > 0,
                Position::Only => true,
            };
        let under_way = match (&responder.incoming, super_packet.head.opcode.operation()) {
            (None, _) => position.begins(),
            (Some(Incoming::Send { .. }), Operation::Send) | (Some(Incoming::Write { .. }), Operation::Write) => {
                !position.begins()
            }
            _ => false,
        };
        let step = match super_packet.head.opcode.operation() {
            _ if !length_fits || !under_way => Step::Refused(INVALID),
            Operation::Send => self.send(responder, super_packet),
            Operation::Write => self.write(responder, super_packet),
            Operation::ReadRequest => self.read(responder, &super_packet.head),
            Operation::CompareSwap | Operation::FetchAdd => self.atomic(responder, &super_packet.head),
            _ => Step::Refused(INVALID),
        };
        if super_packet.packets() > 1 && !matches!(step, Step::Done(_)) {
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
            match super_packet.head.opcode.operation() {
                Operation::Write if position.begins() => parameters.count(QueueCounter::RxWriteRequests),
                Operation::ReadRequest => parameters.count(QueueCounter::RxReadRequests),
                Operation::CompareSwap | Operation::FetchAdd => parameters.count(QueueCounter::RxAtomicRequests),
                _ => {}
            }
        }
        step
    }

    fn send(&self, responder: &mut Responder, super_packet: &SuperPacket<'_>) -> Step {
        let Self {
            engine, qp, parameters, ..
        } = *self;
        let (packet, payload) = (&super_packet.head, &super_packet.payload);
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
        let several = super_packet.packets() > 1;
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

    fn write(&mut self, responder: &mut Responder, super_packet: &SuperPacket<'_>) -> Step {
        let Self {
            engine, qp, parameters, ..
        } = *self;
        let (packet, payload) = (&super_packet.head, &super_packet.payload);
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
            let whole = super_packet.packets() == 1 && position.ends();
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
            if self
                .reach
                .write(accessor, *rkey, at, payload, Access::RemoteWrite)
                .is_err()
            {
                return Step::Refused(NO_ACCESS);
            }
        }
        let length = *length;
        if let Some(header) = packet.headers.immediate {
            self.reach.let_go();
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

    fn read(&self, responder: &mut Responder, packet: &Packet) -> Step {
        let Self {
            engine, qp, parameters, ..
        } = *self;
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

    fn atomic(&self, responder: &mut Responder, packet: &Packet) -> Step {
        let Self {
            engine, qp, parameters, ..
        } = *self;
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
}

fn remember(parameters: &Parameters, responder: &mut Responder, resource: Resource) {
    while responder.resources.len() >= parameters.max_resources {
        responder.resources.pop_front();
    }
    responder.resources.push_back(resource);
}

/// How many packets the answer to a read takes.
pub(super) fn read_packets(packet: &Packet, parameters: &Parameters) -> u32 {
    let length = packet.headers.reth.map_or(0, |reth| reth.dma_length.get());
    parameters.packets(length as usize)
}
