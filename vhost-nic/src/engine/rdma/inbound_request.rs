//! Responder: requests on connections, in the order of their PSNs.

use std::ops::ControlFlow;

use mlx5_prm::queue_entry::EventType;

use super::endpoint::Endpoint;
use super::execute::{Executor, Refused, Step, read_packets};
use super::outbound_response::{Read, Response, Responses};
use super::pcie_wait;
use super::receive_queue::{Broken, XrcQueue};
use crate::hca::qp::{Parameters, Responder, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::SuperPacket;
use crate::roce::opcode::Operation;
use crate::roce::packet::Packet;
use crate::roce::syndrome::{Nak, Syndrome};

/// Receives requests of one sender.
pub(super) fn receive(endpoint: &Endpoint<'_>, super_packets: &[&SuperPacket<'_>]) {
    let parameters = endpoint.parameters;
    if !parameters.state.receives() {
        return;
    }
    if parameters.service != service::XRC {
        return receive_as(endpoint, super_packets, &XrcQueue::Absent);
    }
    for super_packet in super_packets {
        let named = XrcQueue::of(endpoint.context, parameters, &super_packet.head);
        let of_srq = named.own().map(|srq| Parameters {
            // The queue pair has no domain of its own; keys are checked against the shared receive queue's (IBTA annex
            // A14).
            pd: srq.pd(),
            ..parameters.clone()
        });
        let endpoint = Endpoint {
            parameters: of_srq.as_ref().unwrap_or(parameters),
            ..*endpoint
        };
        receive_as(&endpoint, &[super_packet], &named);
    }
}

fn receive_as(endpoint: &Endpoint<'_>, super_packets: &[&SuperPacket<'_>], xrc: &XrcQueue) {
    let mut responses = Responses::default();
    pcie_wait::before_requests(endpoint, super_packets);
    {
        let responder = &mut *endpoint.qp.responder.lock();
        if !endpoint.is_current() {
            return;
        }
        let mut executor = Executor::new(endpoint, xrc);
        for super_packet in super_packets {
            if endpoint.parameters.service == service::UC {
                unreliable(&mut executor, responder, super_packet);
            } else if reliable(&mut executor, responder, super_packet, &mut responses).is_break() {
                // The error state accepts no more requests.
                break;
            }
        }
    }
    responses.send(endpoint);
}

/// Accepts requests of a reliable service. Breaks if the queue pair moves to the error state.
fn reliable<'p>(
    executor: &mut Executor<'_, 'p>,
    responder: &mut Responder,
    super_packet: &SuperPacket<'p>,
    responses: &mut Responses,
) -> ControlFlow<()> {
    let parameters = executor.endpoint.parameters;
    let mut each = |executor: &mut Executor<'_, 'p>, responder: &mut Responder| {
        let mut packets = super_packet.split();
        packets.try_for_each(|packet| reliable(executor, responder, &packet, responses))
    };
    let head = &super_packet.head;
    let bth = &head.headers.bth;
    let (psn, packets) = (bth.psn(), super_packet.packets());
    let expected = responder.expected();
    if packets > 1 && psn != expected {
        return each(executor, responder);
    }
    if psn.is_before(expected) {
        parameters.count(QueueCounter::DuplicateRequest);
        let response = duplicate(responder, head, parameters);
        if let Response::Read(Read { length, .. }) = response {
            responder.account_read(parameters.packets(length), length);
        }
        responses.push(response);
        return ControlFlow::Continue(());
    }
    if psn.is_after(expected) {
        parameters.count(QueueCounter::OutOfSequence);
        // Reported once; later packets get no response until the gap is filled.
        if !responder.report_gap() {
            responses.push(Response::Acknowledge {
                syndrome: Syndrome::Nak(Nak::PsnSequence),
                psn: expected,
                msn: responder.msn(),
            });
        }
        return ControlFlow::Continue(());
    }
    responder.close_gap();
    match executor.execute(responder, super_packet) {
        Step::Split => each(executor, responder),
        Step::Lost => ControlFlow::Continue(()),
        Step::Done(response) => {
            responder.advance(match head.opcode.operation() {
                Operation::ReadRequest => read_packets(head, parameters),
                _ => packets,
            });
            responses.push(match response {
                Response::None if bth.ack_request() => Response::Acknowledge {
                    syndrome: Syndrome::ACK,
                    psn: psn + (packets - 1),
                    msn: responder.msn(),
                },
                response => response,
            });
            ControlFlow::Continue(())
        }
        Step::NoReceive => {
            parameters.count(QueueCounter::OutOfBuffer);
            // Packets behind this one are out of order; the RNR NAK reports them as well.
            responder.report_gap();
            responses.push(Response::Acknowledge {
                syndrome: Syndrome::Rnr(parameters.rnr_timer),
                psn,
                msn: responder.msn(),
            });
            ControlFlow::Continue(())
        }
        Step::Broken(Broken { event }) => {
            executor.fail(event);
            responses.push(Response::Acknowledge {
                syndrome: Syndrome::Nak(Nak::RemoteOperational),
                psn,
                msn: responder.msn(),
            });
            ControlFlow::Break(())
        }
        Step::Refused(Refused { nak, event, .. }) => {
            match event {
                Some(EventType::WqInvalidRequestError) => parameters.count(QueueCounter::RespRemoteInvalidRequest),
                Some(EventType::WqAccessError) => parameters.count(QueueCounter::RespRemoteAccessErrors),
                // Counted with the completion of the receive WQE.
                _ => {}
            }
            // A receive WQE that is partly filled is flushed.
            executor.fail(event);
            responses.push(Response::Acknowledge {
                syndrome: Syndrome::Nak(nak),
                psn,
                msn: responder.msn(),
            });
            ControlFlow::Break(())
        }
    }
}

/// Returns the response to a request that was executed before.
fn duplicate(responder: &Responder, packet: &Packet, parameters: &Parameters) -> Response {
    let (psn, msn) = (packet.headers.bth.psn(), responder.msn());
    match packet.opcode.operation() {
        Operation::ReadRequest => match packet.headers.reth {
            Some(reth) if responder.repeats_read(psn, read_packets(packet, parameters)) => Response::Read(Read {
                psn,
                msn,
                address: reth.virtual_address.get(),
                rkey: reth.rkey.get(),
                length: reth.dma_length.get() as usize,
            }),
            _ => Response::None,
        },
        // Never executed twice: the original value was kept.
        Operation::CompareSwap | Operation::FetchAdd => match responder.atomic_original(psn) {
            Some(original) => Response::Atomic { psn, msn, original },
            None => Response::None,
        },
        _ => Response::Acknowledge {
            syndrome: Syndrome::ACK,
            psn: responder.expected() - 1,
            msn,
        },
    }
}

/// Accepts requests of an unreliable service. A message with a gap, or one that cannot be executed, is dropped as a
/// whole.
fn unreliable<'p>(executor: &mut Executor<'_, 'p>, responder: &mut Responder, super_packet: &SuperPacket<'p>) {
    let head = &super_packet.head;
    let psn = head.headers.bth.psn();
    let begins = head.opcode.position().begins();
    if !responder.accept_unreliable(psn, super_packet.packets(), begins) {
        return;
    }
    match executor.execute(responder, super_packet) {
        Step::Done(_) => {}
        Step::Split => {
            responder.rewind(psn);
            for packet in super_packet.split() {
                unreliable(executor, responder, &packet);
            }
        }
        Step::NoReceive => {
            executor.endpoint.count(QueueCounter::OutOfBuffer);
            responder.skip_message();
        }
        // For every service: the fault is on this side.
        Step::Broken(Broken { event }) => executor.fail(event),
        Step::Refused(_) | Step::Lost => responder.skip_message(),
    }
}
