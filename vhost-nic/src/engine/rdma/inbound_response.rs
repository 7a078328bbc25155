//! Requester: acknowledgements, NAKs, and the responses to reads and atomics.

use mlx5_prm::queue_entry::Syndrome as CqeSyndrome;

use super::super::denial;
use super::super::memory::AccessContext;
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
    let mut reception = Reception {
        endpoint,
        requester,
        access: AccessContext::new(endpoint.hca()),
    };
    for super_packet in super_packets {
        // A response may move the queue pair to the error state.
        if !endpoint.is_current() {
            return;
        }
        reception.accept(super_packet);
    }
    reception.access.unlock();
    let Reception { requester, .. } = reception;
    requester.set_response(FrameNumber::default());
    complete_sent(endpoint, requester);
    // The NIC's thread sends what waited for this, and retransmits. If it is in service, it will check again.
    if !requester.is_in_service() {
        endpoint.schedule();
    }
}

/// Responses of a burst, while the requester is locked.
struct Reception<'a, 'p> {
    endpoint: &'a Endpoint<'a>,
    requester: &'a mut Requester,
    /// Unlocked before the memory of a guest is accessed in another way.
    access: AccessContext<'a, 'p>,
}

impl<'p> Reception<'_, 'p> {
    fn accept(&mut self, super_packet: &SuperPacket<'p>) {
        let packet = &super_packet.head;
        let psn = packet.headers.bth.psn();
        if super_packet.packets() > 1 && !self.fits(super_packet) {
            for packet in super_packet.split() {
                if self.endpoint.is_current() {
                    self.accept(&packet);
                }
            }
            return;
        }
        if self.requester.is_stale(psn) {
            return;
        }
        self.requester.set_response(super_packet.number.get());
        match packet.opcode.operation() {
            Operation::ReadResponse => self.read_response(super_packet),
            Operation::AtomicAcknowledge => self.atomic_response(packet),
            _ => {
                let Some(aeth) = packet.headers.aeth else { return };
                self.endpoint
                    .trace(NicEvent::AckIn, || [psn.value(), aeth.syndrome.into(), aeth.msn(), 0]);
                if let Some(syndrome) = Syndrome::from_byte(aeth.syndrome) {
                    self.acknowledgement(psn, syndrome);
                }
            }
        }
    }

    /// Accepts an acknowledgement or a NAK.
    fn acknowledgement(&mut self, psn: Psn, syndrome: Syndrome) {
        let syndrome = match syndrome {
            Syndrome::Ack { .. } => {
                self.acknowledge(psn + 1);
                return;
            }
            // The response to an earlier request was lost: that is retransmitted first.
            _ if !self.acknowledge(psn) => return,
            Syndrome::Rnr(timer) if self.requester.retry_rnr(self.endpoint.parameters.rnr_retry) => {
                self.endpoint.count(QueueCounter::RnrNakRetryErr);
                self.endpoint.trace(NicEvent::RnrNak, || {
                    [psn.value(), timer.delay().as_micros() as u32, 0, 0]
                });
                self.requester
                    .delay(psn, self.endpoint.hca().clock.instant() + timer.delay());
                return;
            }
            Syndrome::Nak(Nak::PsnSequence) => {
                if self.retransmit(psn) {
                    self.endpoint.count(QueueCounter::PacketSeqErr);
                }
                return;
            }
            Syndrome::Rnr(_) => CqeSyndrome::RnrRetryExceeded,
            Syndrome::Nak(Nak::RemoteAccess) => CqeSyndrome::RemoteAccess,
            Syndrome::Nak(Nak::RemoteOperational) => CqeSyndrome::RemoteOperation,
            Syndrome::Nak(Nak::InvalidRequest | Nak::InvalidRdRequest) => CqeSyndrome::RemoteInvalidRequest,
        };
        self.fail(psn, syndrome);
    }

    /// Acknowledges all packets before `psn`. If the response to a read or an atomic among them was lost, requests it
    /// again and returns false.
    fn acknowledge(&mut self, psn: Psn) -> bool {
        match self.requester.acknowledge_up_to(psn) {
            Ok(()) => true,
            Err(lost) => {
                self.implied_nak(lost);
                false
            }
        }
    }

    /// Retransmits from `psn` on, whose response is missing (IBTA 9.7.5.1.1, implied NAK).
    fn implied_nak(&mut self, psn: Psn) {
        if self.requester.note_gap(psn) && self.retransmit(psn) {
            self.endpoint.count(QueueCounter::ImpliedNakSeqErr);
        }
    }

    /// Retransmits from `psn` on: the packet or its response was lost. Returns whether another retry is allowed.
    fn retransmit(&mut self, psn: Psn) -> bool {
        if !psn.is_before(self.requester.send_psn()) {
            // Retransmission starts there already, or earlier.
            return true;
        }
        let allowed = self.requester.retry(self.endpoint.parameters.retry_count);
        if allowed {
            self.endpoint.trace(NicEvent::Retransmission, || [psn.value(), 0, 0, 0]);
            self.requester.go_back(psn);
        } else {
            self.fail(psn, CqeSyndrome::TransportRetryExceeded);
        }
        allowed
    }

    /// Fails the message that a PSN belongs to; earlier messages are completed.
    fn fail(&mut self, psn: Psn, syndrome: CqeSyndrome) {
        self.access.unlock();
        complete_sent(self.endpoint, self.requester);
        if self.requester.reaches_oldest(psn) {
            fail_oldest(self.endpoint, self.requester, syndrome);
        }
    }

    /// Whether several packets are the next that a read waits for, and so can be accepted as one.
    fn fits(&self, super_packet: &SuperPacket<'p>) -> bool {
        let psn = super_packet.head.headers.bth.psn();
        let last = psn + (super_packet.packets() - 1);
        super_packet.mtu == self.endpoint.parameters.mtu
            && !self.requester.is_acknowledged(psn)
            && self.requester.request_at(psn).is_some_and(|at| {
                let message = self.requester.message(at);
                psn == message.next_response() && !last.is_after(message.last())
            })
    }

    fn read_response(&mut self, super_packet: &SuperPacket<'p>) {
        let parameters = self.endpoint.parameters;
        let (psn, packets, payload) = (
            super_packet.head.headers.bth.psn(),
            super_packet.packets(),
            &super_packet.payload,
        );
        let Some(at) = self.requester.request_at(psn) else {
            return;
        };
        // Everything before the read has arrived. What is missing there comes first: a gap in this read is none yet.
        let first = self.requester.message(at).first();
        if !self.acknowledge(first) {
            return;
        }
        let message = self.requester.message(at);
        let index = psn.distance(message.first()).max(0) as u32;
        if index < message.responses() {
            return;
        }
        if index > message.responses() {
            // A part is missing: it is requested again, with all that follows.
            let missing = message.next_response();
            return self.implied_nak(missing);
        }
        let offset = index as usize * parameters.mtu;
        let length = message.length() as usize;
        let expected = length.saturating_sub(offset).min(packets as usize * parameters.mtu);
        if payload.len() != expected || !matches!(message.work(), Work::Read { .. }) {
            return self.fail(psn, CqeSyndrome::BadResponse);
        }
        let range = offset..offset + payload.len();
        let stored = if length > 0 && length <= parameters.requester_inline && message.is_signaled() {
            self.access.unlock();
            let mut data = Vec::new();
            payload.append_to(&mut data).map(|()| Some(data)).map_err(Into::into)
        } else {
            self.endpoint.hca().pcie_latency.spend(Transaction::PayloadWrite);
            let list = message.data().memory();
            self.access
                .scatter(self.endpoint.accessor(), list, range.clone(), payload)
                .map(|()| None)
        };
        match stored {
            Ok(inline) => {
                if inline.is_none() {
                    self.requester.account_response(at, range, parameters.mtu);
                }
                let number = super_packet.number.get();
                if number.is_observed() {
                    let answered = self.requester.message(at);
                    // The last response is noted with the completion.
                    let count = packets - u32::from(psn + (packets - 1) == answered.last());
                    let effect = || Effect::Answers(self.endpoint.wqe(answered.index(), false));
                    self.endpoint.context.note(number, count, effect);
                }
                self.requester.accept_response(at, psn, packets, inline);
            }
            // The responder cannot read its memory: as if the response had not arrived.
            Err(error) if error.is_of_source() => {}
            Err(error) => {
                self.access.unlock();
                denial::report(self.endpoint.hca(), self.endpoint.qp.number, &error);
                self.fail(psn, CqeSyndrome::LocalProtection);
            }
        }
    }

    fn atomic_response(&mut self, packet: &Packet) {
        let psn = packet.headers.bth.psn();
        let (Some(at), Some(header)) = (self.requester.request_at(psn), packet.headers.atomic_ack) else {
            return;
        };
        if !self.acknowledge(psn) {
            return;
        }
        let message = self.requester.message(at);
        if matches!(message.work(), Work::Read { .. }) {
            return self.fail(psn, CqeSyndrome::BadResponse);
        }
        // In memory, the value has the byte order of the guest's processor.
        let bytes = header.original.get().to_le_bytes();
        let inline = if self.endpoint.parameters.requester_inline >= bytes.len() && message.is_signaled() {
            Some(bytes.to_vec())
        } else {
            self.endpoint.hca().pcie_latency.spend(Transaction::PayloadWrite);
            let mut payload = Payload::new();
            payload.push_bytes(&bytes);
            let list = message.data().memory();
            let stored = self
                .access
                .scatter(self.endpoint.accessor(), list, 0..bytes.len(), &payload);
            if let Err(error) = stored {
                self.access.unlock();
                denial::report(self.endpoint.hca(), self.endpoint.qp.number, &error);
                return self.fail(psn, CqeSyndrome::LocalProtection);
            }
            self.requester.account_response(at, 0..bytes.len(), bytes.len());
            None
        };
        self.requester.accept_response(at, psn, 1, inline);
    }
}
