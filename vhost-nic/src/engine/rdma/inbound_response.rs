//! Requester: acknowledgements, NAKs, and the responses to reads and atomics.

use mlx5_prm::queue_entry::Syndrome as CqeSyndrome;

use super::super::denial;
use super::completion::{complete_sent, fail_oldest};
use super::endpoint::Endpoint;
use crate::hca::nic_event::NicEvent;
use crate::hca::pcie_latency::Transaction;
use crate::hca::qp::{QpState, Requester, Work};
use crate::hca::queue_counter::QueueCounter;
use crate::net::{Effect, FrameNumber, Payload, SuperPacket};
use crate::roce::opcode::Operation;
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// Receives responses.
pub(super) fn receive(endpoint: &Endpoint<'_>, super_packets: &[&SuperPacket<'_>]) {
    if endpoint.parameters.state != QpState::ReadyToSend {
        return;
    }
    let requester = &mut *endpoint.qp.requester.lock();
    for super_packet in super_packets {
        // A response may move the queue pair to the error state.
        if !endpoint.is_current() {
            return;
        }
        accept(endpoint, requester, super_packet);
    }
    requester.set_response(FrameNumber::default());
    complete_sent(endpoint, requester);
    // The NIC's thread sends what waited for this, and retransmits. If it is in service, it will check again.
    if !requester.is_in_service() {
        endpoint.schedule();
    }
}

fn accept(endpoint: &Endpoint<'_>, requester: &mut Requester, super_packet: &SuperPacket<'_>) {
    let packet = &super_packet.head;
    let psn = packet.headers.bth.psn();
    if super_packet.packets() > 1 && !fits(endpoint, requester, super_packet) {
        for packet in super_packet.split() {
            if endpoint.is_current() {
                accept(endpoint, requester, &packet);
            }
        }
        return;
    }
    if requester.is_stale(psn) {
        return;
    }
    requester.set_response(super_packet.number.get());
    match packet.opcode.operation() {
        Operation::ReadResponse => read_response(endpoint, requester, super_packet),
        Operation::AtomicAcknowledge => atomic_response(endpoint, requester, packet),
        _ => {
            let Some(aeth) = packet.headers.aeth else { return };
            endpoint.trace(NicEvent::AckIn, || [psn.value(), aeth.syndrome.into(), aeth.msn(), 0]);
            if let Some(syndrome) = Syndrome::from_byte(aeth.syndrome) {
                acknowledgement(endpoint, requester, psn, syndrome);
            }
        }
    }
}

/// Accepts an acknowledgement or a NAK.
fn acknowledgement(endpoint: &Endpoint<'_>, requester: &mut Requester, psn: Psn, syndrome: Syndrome) {
    let syndrome = match syndrome {
        Syndrome::Ack { .. } => {
            acknowledge(endpoint, requester, psn + 1);
            return;
        }
        // The response to an earlier request was lost: that is retransmitted first.
        _ if !acknowledge(endpoint, requester, psn) => return,
        Syndrome::Rnr(timer) if requester.retry_rnr(endpoint.parameters.rnr_retry) => {
            endpoint.count(QueueCounter::RnrNakRetryErr);
            endpoint.trace(NicEvent::RnrNak, || {
                [psn.value(), timer.delay().as_micros() as u32, 0, 0]
            });
            requester.delay(psn, endpoint.hca().clock.instant() + timer.delay());
            return;
        }
        Syndrome::Nak(Nak::PsnSequence) => {
            if retransmit(endpoint, requester, psn) {
                endpoint.count(QueueCounter::PacketSeqErr);
            }
            return;
        }
        Syndrome::Rnr(_) => CqeSyndrome::RnrRetryExceeded,
        Syndrome::Nak(Nak::RemoteAccess) => CqeSyndrome::RemoteAccess,
        Syndrome::Nak(Nak::RemoteOperational) => CqeSyndrome::RemoteOperation,
        Syndrome::Nak(Nak::InvalidRequest | Nak::InvalidRdRequest) => CqeSyndrome::RemoteInvalidRequest,
    };
    fail(endpoint, requester, psn, syndrome);
}

/// Acknowledges all packets before `psn`. If the response to a read or an atomic among them was lost, requests it again
/// and returns false.
fn acknowledge(endpoint: &Endpoint<'_>, requester: &mut Requester, psn: Psn) -> bool {
    match requester.acknowledge_up_to(psn) {
        Ok(()) => true,
        Err(lost) => {
            implied_nak(endpoint, requester, lost);
            false
        }
    }
}

/// Retransmits from `psn` on, whose response is missing (IBTA 9.7.5.1.1, implied NAK).
fn implied_nak(endpoint: &Endpoint<'_>, requester: &mut Requester, psn: Psn) {
    if requester.note_gap(psn) && retransmit(endpoint, requester, psn) {
        endpoint.count(QueueCounter::ImpliedNakSeqErr);
    }
}

/// Retransmits from `psn` on: the packet or its response was lost. Returns whether another retry is allowed.
fn retransmit(endpoint: &Endpoint<'_>, requester: &mut Requester, psn: Psn) -> bool {
    if requester.send_psn() == psn {
        // Retransmission starts there already.
        return true;
    }
    let allowed = requester.retry(endpoint.parameters.retry_count);
    if allowed {
        endpoint.trace(NicEvent::Retransmission, || [psn.value(), 0, 0, 0]);
        requester.go_back(psn);
    } else {
        fail(endpoint, requester, psn, CqeSyndrome::TransportRetryExceeded);
    }
    allowed
}

/// Fails the message that a PSN belongs to; earlier messages are completed.
fn fail(endpoint: &Endpoint<'_>, requester: &mut Requester, psn: Psn, syndrome: CqeSyndrome) {
    complete_sent(endpoint, requester);
    if requester.reaches_oldest(psn) {
        fail_oldest(endpoint, requester, syndrome);
    }
}

/// Whether several packets are the next that a read waits for, and so can be accepted as one.
fn fits(endpoint: &Endpoint<'_>, requester: &Requester, super_packet: &SuperPacket<'_>) -> bool {
    let psn = super_packet.head.headers.bth.psn();
    let last = psn + (super_packet.packets() - 1);
    super_packet.mtu == endpoint.parameters.mtu
        && !requester.is_acknowledged(psn)
        && requester.request_at(psn).is_some_and(|at| {
            let message = requester.message(at);
            psn == message.next_response() && !last.is_after(message.last())
        })
}

fn read_response(endpoint: &Endpoint<'_>, requester: &mut Requester, super_packet: &SuperPacket<'_>) {
    let parameters = endpoint.parameters;
    let (psn, packets, payload) = (
        super_packet.head.headers.bth.psn(),
        super_packet.packets(),
        &super_packet.payload,
    );
    let Some(at) = requester.request_at(psn) else { return };
    let message = requester.message(at);
    let index = psn.distance(message.first()).max(0) as u32;
    if index < message.responses() {
        return;
    }
    if index > message.responses() {
        // A part is missing: it is requested again, with all that follows.
        let missing = message.next_response();
        return implied_nak(endpoint, requester, missing);
    }
    let offset = index as usize * parameters.mtu;
    let length = message.length() as usize;
    let expected = length.saturating_sub(offset).min(packets as usize * parameters.mtu);
    if payload.len() != expected || !matches!(message.work(), Work::Read { .. }) {
        return fail(endpoint, requester, psn, CqeSyndrome::BadResponse);
    }
    // Everything before the read has arrived.
    let first = message.first();
    if !acknowledge(endpoint, requester, first) {
        return;
    }
    let message = requester.message(at);
    let range = offset..offset + payload.len();
    let stored = if length > 0 && length <= parameters.requester_inline && message.is_signaled() {
        let mut data = Vec::new();
        payload.append_to(&mut data).map(|()| Some(data)).map_err(Into::into)
    } else {
        endpoint.hca().pcie_latency.spend(Transaction::PayloadWrite);
        let memory = endpoint.memory();
        memory
            .scatter(message.data().memory(), range.clone(), &mut payload.cursor())
            .map(|()| None)
    };
    match stored {
        Ok(inline) => {
            if inline.is_none() {
                requester.account_response(at, range, parameters.mtu);
            }
            let (number, index) = (super_packet.number.get(), requester.message(at).index());
            let count = packets - u32::from(psn + (packets - 1) == requester.message(at).last());
            requester.accept_response(at, psn, packets, inline);
            let effect = || Effect::Answers(endpoint.wqe(index, false));
            endpoint.context.note(number, count, effect);
        }
        // The responder cannot read its memory: as if the response had not arrived.
        Err(error) if error.is_of_source() => {}
        Err(error) => {
            denial::report(endpoint.hca(), endpoint.qp.number, &error);
            fail(endpoint, requester, psn, CqeSyndrome::LocalProtection);
        }
    }
}

fn atomic_response(endpoint: &Endpoint<'_>, requester: &mut Requester, packet: &Packet) {
    let psn = packet.headers.bth.psn();
    let (Some(at), Some(header)) = (requester.request_at(psn), packet.headers.atomic_ack) else {
        return;
    };
    if !acknowledge(endpoint, requester, psn) {
        return;
    }
    let message = requester.message(at);
    if matches!(message.work(), Work::Read { .. }) {
        return fail(endpoint, requester, psn, CqeSyndrome::BadResponse);
    }
    // In memory, the value has the byte order of the guest's processor.
    let bytes = header.original.get().to_le_bytes();
    let inline = if endpoint.parameters.requester_inline >= bytes.len() && message.is_signaled() {
        Some(bytes.to_vec())
    } else {
        endpoint.hca().pcie_latency.spend(Transaction::PayloadWrite);
        let mut payload = Payload::new();
        payload.push_bytes(&bytes);
        let stored = endpoint
            .memory()
            .scatter(message.data().memory(), 0..bytes.len(), &mut payload.cursor());
        if let Err(error) = stored {
            denial::report(endpoint.hca(), endpoint.qp.number, &error);
            return fail(endpoint, requester, psn, CqeSyndrome::LocalProtection);
        }
        requester.account_response(at, 0..bytes.len(), bytes.len());
        None
    };
    requester.accept_response(at, psn, 1, inline);
}
