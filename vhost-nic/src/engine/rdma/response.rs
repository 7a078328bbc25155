//! Answers to what a queue pair has sent.

use std::time::Instant;

use mlx5_prm::queue_entry::Syndrome as CqeSyndrome;
use mlx5_prm::wqe::{ControlSegment, DataSegment};

use super::{Engine, memory, requester};
use crate::hca::qp::{Data, DataList, Parameters, Qp, QpState, Requester, Work};
use crate::hca::queue_counter::QueueCounter;
use crate::net::{Payload, SuperPacket};
use crate::roce::opcode::Operation;
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// Takes answers.
pub(super) fn receive(engine: &Engine, qp: &Qp, parameters: &Parameters, super_packets: &[&SuperPacket<'_>]) {
    if parameters.state != QpState::ReadyToSend {
        return;
    }
    let requester = &mut *qp.requester.lock();
    for super_packet in super_packets {
        // An answer may be the last that it took.
        if !qp.is_still(parameters.state) {
            return;
        }
        answer(engine, qp, parameters, requester, super_packet);
    }
    requester::complete(qp, parameters, requester);
    // What waited for this, or is to be sent again, is the NIC's thread's work. If it is at it, it looks again.
    if !requester.attended {
        engine.hca.scheduler.schedule(qp.number);
    }
}

fn answer(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    requester: &mut Requester,
    super_packet: &SuperPacket<'_>,
) {
    let packet = &super_packet.head;
    let psn = packet.headers.bth.psn();
    if super_packet.packets() > 1 && !fits(parameters, requester, super_packet) {
        for packet in super_packet.split() {
            if qp.is_still(parameters.state) {
                answer(engine, qp, parameters, requester, &packet);
            }
        }
        return;
    }
    // Of what was not sent, or is acknowledged already: a ghost.
    if !psn.is_before(requester.next_psn) || psn.is_before(requester.unacknowledged) {
        return;
    }
    match packet.opcode.operation() {
        Operation::ReadResponse => read_response(engine, qp, parameters, requester, super_packet),
        Operation::AtomicAcknowledge => atomic_response(engine, qp, parameters, requester, packet),
        _ => {
            let Some(syndrome) = packet.headers.aeth.and_then(|aeth| Syndrome::from_byte(aeth.syndrome)) else {
                return;
            };
            match syndrome {
                Syndrome::Ack { .. } => {
                    acknowledge(engine, qp, parameters, requester, psn + 1);
                }
                // The answer to an earlier request was lost: that goes first.
                _ if !acknowledge(engine, qp, parameters, requester, psn) => {}
                Syndrome::Rnr(timer) => {
                    if requester::rnr_allowed(parameters, requester) {
                        parameters.count(QueueCounter::RnrNakRetryErr);
                        requester.go_back(psn);
                        requester.not_before = Some(Instant::now() + timer.delay());
                    } else {
                        fail(engine, qp, parameters, requester, psn, CqeSyndrome::RnrRetryExceeded);
                    }
                }
                Syndrome::Nak(Nak::PsnSequence) => {
                    if again(engine, qp, parameters, requester, psn) {
                        parameters.count(QueueCounter::PacketSeqErr);
                    }
                }
                Syndrome::Nak(nak) => {
                    let syndrome = match nak {
                        Nak::RemoteAccess => CqeSyndrome::RemoteAccess,
                        Nak::RemoteOperational => CqeSyndrome::RemoteOperation,
                        Nak::InvalidRequest | Nak::InvalidRdRequest | Nak::PsnSequence => {
                            CqeSyndrome::RemoteInvalidRequest
                        }
                    };
                    fail(engine, qp, parameters, requester, psn, syndrome);
                }
            }
        }
    }
}

/// All packets before `psn` have arrived. A read or an atomic among them whose answer has not was lost, and is asked for again; then this
/// returns false.
fn acknowledge(engine: &Engine, qp: &Qp, parameters: &Parameters, requester: &mut Requester, psn: Psn) -> bool {
    let mut lost = None;
    // Also those that are being sent again: what is acknowledged late was acknowledged.
    for message in requester.messages.iter_mut() {
        if message.packets == 0 || message.done {
            continue;
        }
        if !message.last().is_before(psn) {
            break;
        }
        if message.work.is_request() {
            lost = Some(message.first + message.answered);
            break;
        }
        message.done = true;
    }
    let reached = lost.unwrap_or(psn);
    if reached.is_after(requester.unacknowledged) {
        requester.unacknowledged = reached;
        progress(requester);
    }
    if let Some(first) = lost
        && again(engine, qp, parameters, requester, first)
    {
        parameters.count(QueueCounter::ImpliedNakSeqErr);
    }
    lost.is_none()
}

/// What was sent from `psn` on did not arrive, or its answer did not. Returns whether there is another attempt.
fn again(engine: &Engine, qp: &Qp, parameters: &Parameters, requester: &mut Requester, psn: Psn) -> bool {
    if requester.send_psn == psn {
        // Known already.
        return true;
    }
    let allowed = requester::retry_allowed(parameters, requester);
    if allowed {
        requester.go_back(psn);
    } else {
        fail(
            engine,
            qp,
            parameters,
            requester,
            psn,
            CqeSyndrome::TransportRetryExceeded,
        );
    }
    allowed
}

fn progress(requester: &mut Requester) {
    requester.retries = 0;
    requester.rnr_retries = 0;
    requester.deadline = None;
}

/// The message that a PSN belongs to failed at the other side; those before it are done.
fn fail(engine: &Engine, qp: &Qp, parameters: &Parameters, requester: &mut Requester, psn: Psn, syndrome: CqeSyndrome) {
    requester::complete(qp, parameters, requester);
    if requester
        .messages
        .first()
        .is_some_and(|first| first.packets > 0 && !psn.is_before(first.first))
    {
        requester::fail_first(engine, qp, parameters, requester, syndrome);
    }
}

/// The read or atomic that an answer with this PSN belongs to.
fn request(requester: &Requester, psn: Psn) -> Option<usize> {
    requester
        .messages
        .iter()
        .take(requester.current + 1)
        .position(|message| message.work.is_request() && !message.done && psn.is_within(message.first, message.last()))
}

/// Whether several packets are what a read waits for next, and so are taken as one.
fn fits(parameters: &Parameters, requester: &Requester, super_packet: &SuperPacket<'_>) -> bool {
    let psn = super_packet.head.headers.bth.psn();
    let last = psn + (super_packet.packets() - 1);
    super_packet.mtu == parameters.mtu
        && !psn.is_before(requester.unacknowledged)
        && request(requester, psn).is_some_and(|at| {
            let message = &requester.messages[at];
            psn == message.first + message.answered && !last.is_after(message.last())
        })
}

fn read_response(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    requester: &mut Requester,
    super_packet: &SuperPacket<'_>,
) {
    let (psn, packets, payload) = (
        super_packet.head.headers.bth.psn(),
        super_packet.packets(),
        &super_packet.payload,
    );
    let Some(at) = request(requester, psn) else { return };
    let message = &mut requester.messages[at];
    let (first, last) = (message.first, message.last());
    let index = psn.distance(first).max(0) as u32;
    if index < message.answered {
        return;
    }
    if index > message.answered {
        // A part is missing: it is asked for again, with all that follows.
        let missing = first + message.answered;
        if again(engine, qp, parameters, requester, missing) {
            parameters.count(QueueCounter::ImpliedNakSeqErr);
        }
        return;
    }
    let offset = index as usize * parameters.mtu;
    let expected =
        (message.length as usize - offset.min(message.length as usize)).min(packets as usize * parameters.mtu);
    if payload.len() != expected || !matches!(message.work, Work::Read { .. }) {
        return fail(engine, qp, parameters, requester, psn, CqeSyndrome::BadResponse);
    }
    // Everything before the read has arrived.
    if !acknowledge(engine, qp, parameters, requester, first) {
        return;
    }
    let message = &mut requester.messages[at];
    let inline = message.length > 0
        && message.length as usize <= parameters.requester_inline
        && message.control.fm_ce_se & ControlSegment::CQ_UPDATE != 0;
    let stored = if inline {
        let mut data = Vec::new();
        let stored = payload.append_to(&mut data).map_err(|_| memory::Unreachable);
        message.answer = Some(data);
        stored
    } else {
        memory::scatter(engine, qp, parameters, segments(&message.data), offset, payload)
    };
    if stored.is_err() {
        return fail(engine, qp, parameters, requester, psn, CqeSyndrome::LocalProtection);
    }
    message.answered += packets;
    message.done = psn + (packets - 1) == last;
    requester.unacknowledged = psn + packets;
    progress(requester);
}

fn segments(data: &DataList) -> impl Iterator<Item = DataSegment> {
    data.parts().filter_map(|part| match part {
        Data::Memory(segment) => Some(segment),
        Data::Inline(_) => None,
    })
}

fn atomic_response(engine: &Engine, qp: &Qp, parameters: &Parameters, requester: &mut Requester, packet: &Packet) {
    let psn = packet.headers.bth.psn();
    let (Some(at), Some(header)) = (request(requester, psn), packet.headers.atomic_ack) else {
        return;
    };
    if !acknowledge(engine, qp, parameters, requester, psn) {
        return;
    }
    let message = &mut requester.messages[at];
    if matches!(message.work, Work::Read { .. }) {
        return fail(engine, qp, parameters, requester, psn, CqeSyndrome::BadResponse);
    }
    // In memory it is as the guest's processor has it.
    let bytes = header.original.get().to_le_bytes();
    let inline =
        parameters.requester_inline >= bytes.len() && message.control.fm_ce_se & ControlSegment::CQ_UPDATE != 0;
    if inline {
        message.answer = Some(bytes.to_vec());
    } else {
        let mut payload = Payload::new();
        payload.push_bytes(&bytes);
        if memory::scatter(engine, qp, parameters, segments(&message.data), 0, &payload).is_err() {
            return fail(engine, qp, parameters, requester, psn, CqeSyndrome::LocalProtection);
        }
    }
    message.done = true;
    requester.unacknowledged = psn + 1;
    progress(requester);
}
