//! Responder: executes requests in the guest's memory and queues.

use std::sync::Arc;

use mlx5_prm::queue_entry::{EventType, Syndrome as CqeSyndrome};

use super::super::denial;
use super::super::memory::{AccessContext, AccessError, KeyRange};
use super::completion::{self, Arrival, ReceiveCq};
use super::endpoint::Endpoint;
use super::outbound_response::{Read, Response};
use super::receive_queue::{self, Broken, XrcQueue};
use crate::hca::mkey::{self, Access};
use crate::hca::pcie_account::Transactions;
use crate::hca::qp::{Incoming, Parameters, Resource, Responder, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::SuperPacket;
use crate::roce::opcode::{Operation, Position};
use crate::roce::packet::Packet;
use crate::roce::syndrome::Nak;

/// Longest message that a request may name (IBTA 9.7.4.1.3).
const MAX_LENGTH: u32 = 1 << 31;

/// Refusal of a request.
pub(super) struct Refused {
    pub nak: Nak,
    /// The event that the guest gets when the queue pair moves to the error state.
    pub event: Option<EventType>,
    /// The access that was denied, if that is the reason.
    pub denied: Option<Box<AccessError>>,
}

const INVALID: Refused = Refused {
    nak: Nak::InvalidRequest,
    event: Some(EventType::WqInvalidRequestError),
    denied: None,
};

/// The guest's memory behind a valid key cannot be accessed (IBTA 9.7.5.2.4).
#[cold]
fn operational(error: AccessError) -> Step {
    Step::Refused(Refused {
        nak: Nak::RemoteOperational,
        event: None,
        denied: Some(Box::new(error)),
    })
}

#[cold]
fn no_access(error: AccessError) -> Step {
    Step::Refused(Refused {
        nak: Nak::RemoteAccess,
        event: Some(EventType::WqAccessError),
        denied: Some(Box::new(error)),
    })
}

/// Outcome of a request.
pub(super) enum Step {
    /// Executed.
    Done(Response),
    /// Not all packets of the super-packet can be executed: each must be tried individually. Nothing has changed
    /// except memory that will be written again.
    Split,
    /// The sender cannot read the payload: as if the packet had not arrived. Nothing has changed.
    Lost,
    /// No receive WQE is posted.
    NoReceive,
    /// The queue pair cannot receive any more.
    Broken(Broken),
    /// Refused.
    Refused(Refused),
}

/// Executes the requests of a burst for a queue pair.
pub(super) struct Executor<'a, 'p> {
    pub endpoint: &'a Endpoint<'a>,
    /// The shared receive queue that the packets name.
    xrc: &'a XrcQueue,
    access: AccessContext<'a, 'p>,
}

impl<'a, 'p> Executor<'a, 'p> {
    pub fn new(endpoint: &'a Endpoint<'a>, xrc: &'a XrcQueue) -> Self {
        Self {
            endpoint,
            xrc,
            access: AccessContext::new(endpoint.hca()),
        }
    }

    /// Moves the queue pair to the error state.
    pub fn fail(&mut self, event: Option<EventType>) {
        self.access.unlock();
        self.endpoint.fail(event);
    }

    /// Executes all packets of a super-packet or none.
    pub fn execute(&mut self, responder: &mut Responder, super_packet: &SuperPacket<'p>) -> Step {
        let parameters = self.endpoint.parameters;
        let head = &super_packet.head;
        let (operation, position) = (head.opcode.operation(), head.opcode.position());
        if !matches!(operation, Operation::Write | Operation::ReadRequest) {
            self.access.unlock();
        }
        let (length, mtu) = (head.payload_length, parameters.mtu);
        let length_fits = parameters.packets(length) == super_packet.packets()
            && match position {
                Position::First | Position::Middle => length > 0 && length.is_multiple_of(mtu),
                Position::Last => length > 0,
                Position::Only => true,
            };
        let in_order = match (responder.incoming(), operation) {
            (None, _) => position.begins(),
            (Some(Incoming::Send { .. }), Operation::Send) | (Some(Incoming::Write { .. }), Operation::Write) => {
                !position.begins()
            }
            _ => false,
        };
        // One variable, which is the caller's: a step that is copied stalls the processor.
        let mut step = match operation {
            _ if !length_fits || !in_order || !self.names_its_queue(responder, head) => Step::Refused(INVALID),
            Operation::Send => self.send(responder, super_packet),
            Operation::Write => self.write(responder, super_packet),
            Operation::ReadRequest => self.read(responder, head),
            Operation::CompareSwap | Operation::FetchAdd => self.atomic(responder, head),
            _ => Step::Refused(INVALID),
        };
        if super_packet.packets() > 1 && !matches!(step, Step::Done(_) | Step::Broken(_)) {
            // As if the message had not begun.
            if position.begins() && in_order {
                responder.abandon_message();
            }
            step = Step::Split;
        } else if matches!(step, Step::Lost) && position.begins() {
            responder.abandon_message();
        } else if let Step::Refused(Refused {
            denied: Some(error), ..
        }) = &step
        {
            denial::report(self.endpoint.hca(), self.endpoint.qp.number, error);
        }
        if length_fits && in_order && !matches!(step, Step::Split) {
            match operation {
                Operation::Write if position.begins() => parameters.count(QueueCounter::RxWriteRequests),
                Operation::ReadRequest => parameters.count(QueueCounter::RxReadRequests),
                Operation::CompareSwap | Operation::FetchAdd => parameters.count(QueueCounter::RxAtomicRequests),
                _ => {}
            }
        }
        step
    }

    /// Whether a request names a shared receive queue that it may: one of the queue pair's XRC domain if it takes a
    /// receive WQE, and that of the message it continues; for others, none of another domain (IBTA annex A14: invalid
    /// XRCETH, XRC domain violation). Requests of other services name none.
    fn names_its_queue(&self, responder: &Responder, packet: &Packet) -> bool {
        if self.endpoint.parameters.service != service::XRC {
            return true;
        }
        match self.xrc {
            XrcQueue::Own(srq) => responder
                .receive_in_use()
                .and_then(|receive| receive.srq.as_ref())
                .is_none_or(|used| Arc::ptr_eq(used, srq)),
            XrcQueue::Absent => packet.opcode.operation() != Operation::Send && packet.headers.immediate.is_none(),
            XrcQueue::Foreign => false,
        }
    }

    fn send(&self, responder: &mut Responder, super_packet: &SuperPacket<'_>) -> Step {
        let endpoint = self.endpoint;
        let parameters = endpoint.parameters;
        let (packet, payload) = (&super_packet.head, &super_packet.payload);
        let position = packet.opcode.position();
        if position.begins() {
            match receive_queue::take(endpoint, responder, super_packet, self.xrc) {
                Ok(Some(receive)) => responder.begin_send(receive),
                Ok(None) => return Step::NoReceive,
                Err(broken) => return Step::Broken(broken),
            }
        }
        let Some(Incoming::Send { receive, received }) = responder.incoming() else {
            return Step::Refused(INVALID);
        };
        let several = super_packet.packets() > 1;
        let length = u64::from(*received) + payload.len() as u64;
        if !receive.takes(length) {
            if several {
                return Step::Split;
            }
            if parameters.service == service::UC {
                // Silently dropped; the receive WQE stays posted (IBTA 9.9.3).
                return Step::Refused(INVALID);
            }
            self.fail_receive(responder, super_packet, CqeSyndrome::LocalLength);
            return Step::Refused(Refused {
                nak: Nak::InvalidRequest,
                event: None,
                denied: None,
            });
        }
        let inline = is_inline(parameters, super_packet);
        let mut data = Vec::new();
        let stored = if inline {
            payload.append_to(&mut data).map_err(AccessError::from)
        } else {
            endpoint.scatter(receive, *received as usize, payload)
        };
        let mut written = Transactions::default();
        if !inline {
            let range = *received as usize..length as usize;
            written.add_packets(receive.lengths(), range, parameters.mtu);
        }
        if let Err(error) = stored {
            if several {
                return Step::Split;
            }
            if error.is_of_source() {
                return Step::Lost;
            }
            self.fail_receive(responder, super_packet, CqeSyndrome::LocalProtection);
            // For every service: the fault is on this side.
            endpoint.fail(None);
            return operational(error);
        }
        if !position.ends() {
            responder.account_written(written);
            responder.accept(payload.len() as u32);
            return Step::Done(Response::None);
        }
        let invalidated = packet.headers.invalidate.map(|header| header.rkey.get());
        if let Some(key) = invalidated {
            let hca = endpoint.hca();
            if let Err(error) = mkey::invalidate(&hca.mkeys, key, endpoint.accessor(), true) {
                let range = KeyRange {
                    key,
                    address: 0,
                    length: 0,
                };
                return no_access(AccessError::Mkey(error, range));
            }
            hca.revoke();
            hca.retired_keys.add(key);
        }
        let arrival = Arrival {
            invalidated,
            ..Arrival::of(packet, length as u32)
        };
        let (last, srq) = (super_packet.last_number(), receive.srq.as_ref());
        let completed = receive_queue::complete(endpoint, last, receive.wqe_counter, srq, |to| {
            let cqe = completion::arrived(endpoint.qp, to.user_index, receive, arrival);
            if inline {
                to.cq.post_with_data(cqe, &data)
            } else {
                to.cq.post(cqe)
            }
        });
        if let Err(broken) = completed {
            responder.drop_message();
            return Step::Broken(broken);
        }
        responder.account_written(written);
        responder.complete_message();
        Step::Done(Response::None)
    }

    /// Completes the receive WQE of the message in progress in error, and drops the message.
    fn fail_receive(&self, responder: &mut Responder, packet: &SuperPacket<'_>, syndrome: CqeSyndrome) {
        let endpoint = self.endpoint;
        if let Some(Incoming::Send { receive, .. }) = responder.incoming() {
            let failed = |to: ReceiveCq<'_>| completion::receive_failed(endpoint.qp, to, receive.wqe_counter, syndrome);
            let (last, srq) = (packet.last_number(), receive.srq.as_ref());
            if let Err(broken) = receive_queue::complete(endpoint, last, receive.wqe_counter, srq, failed) {
                endpoint.fail(broken.event);
            }
        }
        responder.drop_message();
    }

    fn write(&mut self, responder: &mut Responder, super_packet: &SuperPacket<'p>) -> Step {
        let endpoint = self.endpoint;
        let (packet, payload) = (&super_packet.head, &super_packet.payload);
        let position = packet.opcode.position();
        if position.begins() {
            let Some(reth) = packet.headers.reth else {
                return Step::Refused(INVALID);
            };
            if !endpoint.parameters.remote_write || reth.dma_length.get() > MAX_LENGTH {
                return Step::Refused(INVALID);
            }
            let (address, rkey, length) = (reth.virtual_address.get(), reth.rkey.get(), reth.dma_length.get());
            // The key allows all of the range or nothing; a message in one packet is checked as it is written. A write
            // of no bytes does not check the key (C9-88).
            let whole = super_packet.packets() == 1 && position.ends();
            let range = KeyRange {
                key: rkey,
                address,
                length: length as usize,
            };
            if !whole && let Err(error) = endpoint.memory().check(range, Access::RemoteWrite) {
                return no_access(error);
            }
            responder.begin_write(address, rkey, length);
        }
        let Some(&Incoming::Write {
            address,
            rkey,
            length,
            received,
        }) = responder.incoming()
        else {
            return Step::Refused(INVALID);
        };
        let so_far = u64::from(received) + payload.len() as u64;
        let complete = so_far == u64::from(length);
        if so_far > u64::from(length) || position.ends() != complete {
            return Step::Refused(INVALID);
        }
        let at = address.wrapping_add(u64::from(received));
        if !payload.is_empty()
            && let Err(error) = self.access.write(endpoint.accessor(), rkey, at, payload)
        {
            return match error {
                error if error.is_of_source() => Step::Lost,
                error @ AccessError::Dma(_) => operational(error),
                error => no_access(error),
            };
        }
        if !payload.is_empty() {
            responder.account_written(Transactions {
                count: super_packet.packets().into(),
                bytes: payload.len() as u64,
            });
        }
        if packet.headers.immediate.is_some() {
            self.access.unlock();
            let receive = match receive_queue::take(endpoint, responder, super_packet, self.xrc) {
                Ok(Some(receive)) => receive,
                taken => {
                    if position.begins() {
                        responder.drop_message();
                    }
                    return taken.map_or_else(Step::Broken, |_| Step::NoReceive);
                }
            };
            let arrival = Arrival {
                write: true,
                ..Arrival::of(packet, length)
            };
            let (last, srq) = (super_packet.last_number(), receive.srq.as_ref());
            let completed = receive_queue::complete(endpoint, last, receive.wqe_counter, srq, |to| {
                let cqe = completion::arrived(endpoint.qp, to.user_index, &receive, arrival);
                to.cq.post(cqe)
            });
            if let Err(broken) = completed {
                responder.drop_message();
                return Step::Broken(broken);
            }
        }
        if position.ends() {
            responder.complete_message();
        } else {
            responder.accept(payload.len() as u32);
        }
        Step::Done(Response::None)
    }

    fn read(&mut self, responder: &mut Responder, packet: &Packet) -> Step {
        let parameters = self.endpoint.parameters;
        let Some(reth) = packet.headers.reth else {
            return Step::Refused(INVALID);
        };
        let (address, rkey, length) = (reth.virtual_address.get(), reth.rkey.get(), reth.dma_length.get());
        if !parameters.remote_read || length > MAX_LENGTH {
            return Step::Refused(INVALID);
        }
        let length = length as usize;
        let range = KeyRange {
            key: rkey,
            address,
            length,
        };
        if length > 0
            && let Err(error) = self.access.check(self.endpoint.accessor(), range, Access::RemoteRead)
        {
            return no_access(error);
        }
        let psn = packet.headers.bth.psn();
        let resource = Resource {
            psn,
            packets: read_packets(packet, parameters),
            original: None,
        };
        responder.account_read(resource.packets, length);
        responder.remember(resource, parameters.max_resources);
        responder.complete_message();
        Step::Done(Response::Read(Read {
            psn,
            msn: responder.msn(),
            address,
            rkey,
            length,
        }))
    }

    fn atomic(&self, responder: &mut Responder, packet: &Packet) -> Step {
        let parameters = self.endpoint.parameters;
        let Some(atomic) = packet.headers.atomic else {
            return Step::Refused(INVALID);
        };
        let address = atomic.virtual_address.get();
        if !parameters.remote_atomic || !address.is_multiple_of(8) {
            return Step::Refused(INVALID);
        }
        let (operand, compare) = (atomic.swap_or_add.get(), atomic.compare.get());
        let swap = packet.opcode.operation() == Operation::CompareSwap;
        let memory = self.endpoint.memory();
        let result = memory.atomic(atomic.rkey.get(), address, |value| match swap {
            true => (value == compare).then_some(operand),
            false => Some(value.wrapping_add(operand)),
        });
        let original = match result {
            Ok(original) => original,
            Err(error) => return no_access(error),
        };
        let operand_bytes = size_of_val(&original);
        responder.account_read(1, operand_bytes);
        if !swap || original == compare {
            responder.account_written(Transactions {
                count: 1,
                bytes: operand_bytes as u64,
            });
        }
        let psn = packet.headers.bth.psn();
        let resource = Resource {
            psn,
            packets: 1,
            original: Some(original),
        };
        responder.remember(resource, parameters.max_resources);
        responder.complete_message();
        Step::Done(Response::Atomic {
            psn,
            msn: responder.msn(),
            original,
        })
    }
}

/// Whether the payload of a send goes into the completion: if it is short, as a whole or not at all.
pub(super) fn is_inline(parameters: &Parameters, super_packet: &SuperPacket<'_>) -> bool {
    let length = super_packet.payload.len();
    super_packet.head.opcode.position() == Position::Only && (1..=parameters.responder_inline).contains(&length)
}

/// Number of response packets for an RDMA read.
pub(super) fn read_packets(packet: &Packet, parameters: &Parameters) -> u32 {
    let length = packet.headers.reth.map_or(0, |reth| reth.dma_length.get());
    parameters.packets(length as usize)
}
