//! Completions of queue pairs.

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, Syndrome};
use mlx5_prm::wqe::WqeOpcode;

use super::super::wqe_check;
use super::endpoint::Endpoint;
use super::vendor_syndrome::vendor_syndrome;
use crate::hca::cq::{Cq, Posted};
use crate::hca::pcie_latency::Transaction;
use crate::hca::qp::{Message, Qp, Receive, Requester, Work};
use crate::net::{CqePlace, Effect};
use crate::roce::packet::Packet;

/// A received message, as its completion describes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// An RDMA write, not a send.
    pub write: bool,
    pub immediate: Option<u32>,
    /// R_Key that was invalidated.
    pub invalidated: Option<u32>,
    /// Whether the sender requests a solicited event.
    pub solicited: bool,
    /// Length in bytes.
    pub length: u32,
}

impl Arrival {
    /// A message whose last packet is `packet`.
    pub fn of(packet: &Packet, length: u32) -> Self {
        let immediate = packet.headers.immediate;
        Self {
            immediate: immediate.map(|header| u32::from_be_bytes(header.immediate)),
            solicited: packet.headers.bth.solicited(),
            length,
            ..Self::default()
        }
    }
}

/// Destination of a receive completion: the completion queue, and the user index of the queue that the WQE was posted
/// to.
#[derive(Clone, Copy)]
pub(super) struct ReceiveCq<'a> {
    pub cq: &'a Cq,
    pub user_index: u32,
}

/// Completes the messages at the front of the send queue that are done.
pub(super) fn complete_sent(endpoint: &Endpoint<'_>, requester: &mut Requester) {
    let latency = &endpoint.hca().pcie_latency;
    if latency.is_on() && requester.completes_signaled() {
        latency.spend(Transaction::CqeWrite);
    }
    requester.complete(|message| sent(endpoint, message));
}

/// Completes the oldest message in error and moves the queue pair to the error state, where the later ones are flushed.
pub(super) fn fail_oldest(endpoint: &Endpoint<'_>, requester: &mut Requester, syndrome: Syndrome) {
    requester.fail_oldest(|message| send_failed(endpoint, message, syndrome));
    endpoint.fail(None);
}

fn sent(endpoint: &Endpoint<'_>, message: &Message) {
    if let (Some(wqe), Some(ring)) = (message.wqe(), &endpoint.qp.send_queue) {
        wqe_check::compare(endpoint.hca(), endpoint.qp.number, ring, message.index(), wqe);
    }
    let place = match &endpoint.qp.send_cq {
        Some(cq) if message.is_signaled() => endpoint.placed(post_sent(endpoint, message, cq)),
        _ => None,
    };
    note_sent(endpoint, message, place);
}

/// Notes that a frame ended a send WQE.
fn note_sent(endpoint: &Endpoint<'_>, message: &Message, place: Option<CqePlace>) {
    let effect = || Effect::Ends(endpoint.wqe(message.index(), false), place);
    endpoint.context.note(message.ended_by(), 1, effect);
}

fn post_sent(endpoint: &Endpoint<'_>, message: &Message, cq: &Cq) -> Posted {
    let mut cqe = Cqe::new(CqeOpcode::Request);
    cqe.srqn_uidx.set(endpoint.parameters.user_index);
    cqe.sop_drop_qpn
        .set(u32::from(message.control().opcode()) << 24 | endpoint.qp.number);
    cqe.wqe_counter.set(message.index());
    if message.work().is_request() {
        cqe.byte_count.set(message.length());
    }
    match message.inline_response() {
        Some(data) => cq.post_with_data(cqe, data),
        None => cq.post(cqe),
    }
}

/// Completes a message of the send queue in error.
pub(super) fn send_failed(endpoint: &Endpoint<'_>, message: &Message, syndrome: Syndrome) {
    let Some(cq) = &endpoint.qp.send_cq else { return };
    if let Some(counters) = &endpoint.parameters.counters {
        counters.count_request_error(syndrome);
    }
    let opcode = match message.work() {
        Work::Nop => WqeOpcode::Nop as u8,
        _ => message.control().opcode(),
    };
    let mut error = ErrorCqe::new(CqeOpcode::RequestError, syndrome);
    error.vendor_error_syndrome = vendor_syndrome(CqeOpcode::RequestError, syndrome);
    error.srqn_uidx.set(endpoint.parameters.user_index);
    error.s_wqe_opcode_qpn.set(u32::from(opcode) << 24 | endpoint.qp.number);
    error.wqe_counter.set(message.index());
    note_sent(endpoint, message, endpoint.placed(cq.post(error.into())));
}

/// Builds the completion of a received message.
pub(super) fn arrived(qp: &Qp, user_index: u32, receive: &Receive, arrival: Arrival) -> Cqe {
    let opcode = match arrival {
        Arrival { write: true, .. } => CqeOpcode::ResponderWriteImmediate,
        Arrival { immediate: Some(_), .. } => CqeOpcode::ResponderSendImmediate,
        Arrival {
            invalidated: Some(_), ..
        } => CqeOpcode::ResponderSendInvalidate,
        _ => CqeOpcode::ResponderSend,
    };
    let mut cqe = Cqe::new(opcode);
    if arrival.solicited {
        cqe.op_own |= Cqe::SOLICITED;
    }
    cqe.immediate
        .set(arrival.immediate.or(arrival.invalidated).unwrap_or(0));
    cqe.srqn_uidx.set(user_index);
    cqe.byte_count.set(arrival.length);
    cqe.sop_drop_qpn.set(qp.number);
    cqe.wqe_counter.set(receive.wqe_counter);
    cqe
}

/// Completes a receive WQE in error.
pub(super) fn receive_failed(qp: &Qp, to: ReceiveCq<'_>, wqe_counter: u16, syndrome: Syndrome) -> Posted {
    if let Some(counters) = &qp.parameters().counters {
        counters.count_receive_error(syndrome);
    }
    let mut error = ErrorCqe::new(CqeOpcode::ResponderError, syndrome);
    error.vendor_error_syndrome = vendor_syndrome(CqeOpcode::ResponderError, syndrome);
    error.srqn_uidx.set(to.user_index);
    error.s_wqe_opcode_qpn.set(qp.number);
    error.wqe_counter.set(wqe_counter);
    to.cq.post(error.into())
}
