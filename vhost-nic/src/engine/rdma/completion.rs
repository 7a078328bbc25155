//! Completions of queue pairs.

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, Syndrome};
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};

use super::vendor;
use crate::hca::cq::Cq;
use crate::hca::qp::{Message, Parameters, Qp, Receive, Work};

/// What a message was, for its receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// An RDMA write, not a send.
    pub(super) write: bool,
    /// The immediate.
    pub(super) immediate: Option<u32>,
    /// The key that was invalidated.
    pub(super) invalidated: Option<u32>,
    /// The sender wants attention.
    pub(super) solicited: bool,
    /// Bytes that arrived.
    pub(super) length: u32,
}

/// A WQE of the sending side is carried out.
pub(super) fn sent(qp: &Qp, parameters: &Parameters, message: &Message) {
    let Some(cq) = &qp.send_cq else { return };
    if message.control.fm_ce_se & ControlSegment::CQ_UPDATE == 0 {
        return;
    }
    let mut cqe = Cqe::new(CqeOpcode::Request);
    cqe.srqn_uidx.set(parameters.user_index);
    cqe.sop_drop_qpn
        .set(u32::from(message.control.opcode()) << 24 | qp.number);
    cqe.wqe_counter.set(message.index);
    if message.work.is_request() {
        cqe.byte_count.set(message.length);
    }
    match &message.answer {
        Some(data) => cq.post_with_data(cqe, data),
        None => cq.post(cqe),
    }
}

/// A WQE of the sending side failed.
pub(super) fn send_failed(qp: &Qp, parameters: &Parameters, opcode: u8, index: u16, syndrome: Syndrome) {
    let Some(cq) = &qp.send_cq else { return };
    if let Some(counters) = &parameters.counters {
        counters.count_request_error(syndrome);
    }
    let mut error = ErrorCqe::new(CqeOpcode::RequestError, syndrome);
    error.vendor_error_syndrome = vendor::syndrome(CqeOpcode::RequestError, syndrome);
    error.srqn_uidx.set(parameters.user_index);
    error.s_wqe_opcode_qpn.set(u32::from(opcode) << 24 | qp.number);
    error.wqe_counter.set(index);
    cq.post(error.into());
}

/// What a completion of the receiving side begins as.
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

/// A WQE of the receiving side failed.
pub(super) fn receive_failed(qp: &Qp, cq: &Cq, user_index: u32, wqe_counter: u16, syndrome: Syndrome) {
    if let Some(counters) = &qp.parameters().counters {
        counters.count_receive_error(syndrome);
    }
    let mut error = ErrorCqe::new(CqeOpcode::ResponderError, syndrome);
    error.vendor_error_syndrome = vendor::syndrome(CqeOpcode::ResponderError, syndrome);
    error.srqn_uidx.set(user_index);
    error.s_wqe_opcode_qpn.set(qp.number);
    error.wqe_counter.set(wqe_counter);
    cq.post(error.into());
}

/// The opcode that a completion repeats.
pub(super) fn opcode(message: &Message) -> u8 {
    match message.work {
        Work::Nop => WqeOpcode::Nop as u8,
        _ => message.control.opcode(),
    }
}
