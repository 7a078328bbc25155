//! Commands on queue pairs and multicast groups.

use std::sync::Arc;

use mlx5_prm::command::Status;
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::qp::*;
use mlx5_prm::wqe::ControlSegment;
use zerocopy::IntoBytes;

use super::command::{
    Commands, Input, Refusal, Reply, Result, TABLE_FULL, bad_buffer, bad_parameter, in_use, no_object, no_such,
};
use super::{Firmware, syndrome};
use crate::hca::buffer::Buffer;
use crate::hca::cq::Cq;
use crate::hca::nic_finding::{Finding, queue};
use crate::hca::qp::{Qp, QpParts, QpState, ReceiveSource, service};
use crate::hca::refcount::Reference;
use crate::hca::scheduler::Task;
use crate::hca::wq::WorkQueue;
use crate::hca::{Hca, Queue};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_QP, create),
    (Opcode::DESTROY_QP, destroy),
    (Opcode::QUERY_QP, query),
    (Opcode::RST2INIT_QP, transition),
    (Opcode::INIT2INIT_QP, transition),
    (Opcode::INIT2RTR_QP, transition),
    (Opcode::RTR2RTS_QP, transition),
    (Opcode::RTS2RTS_QP, transition),
    (Opcode::SQERR2RTS_QP, transition),
    (Opcode::SQD_RTS_QP, transition),
    (Opcode::QP_2ERR, transition),
    (Opcode::QP_2RST, transition),
    (Opcode::ATTACH_TO_MCG, attach_to_mcg),
    (Opcode::DETACH_FROM_MCG, detach_from_mcg),
];

/// `rq_type` of a queue pair (`MLX5_*_RQ`, qp.h).
const RQ_OWN: u8 = 0;
const RQ_SHARED: u8 = 1;
const RQ_NONE: u8 = 3;
/// Log2 of the bytes of the smallest receive WQE.
const MIN_RQ_STRIDE: u8 = 4;
/// Log2 of the bytes of a send WQE's basic block.
const SQ_STRIDE: u8 = 6;
/// Bit of `opt_param_mask` for the address path (`MLX5_QP_OPTPAR_PRIMARY_ADDR_PATH`, qp.h).
const OPTIONAL_PRIMARY_PATH: u32 = 1 << 7;
/// Maximum number of queue pairs in a multicast group (`max_qp_mcg`), and of groups (`log_max_mcg`).
const MAX_QP_MCG: usize = 64;
const MAX_MCG: usize = 1 << 10;

fn find(hca: &Hca, number: u32) -> Result<Arc<Qp>> {
    match hca.queues.get(number).as_deref() {
        Some(Queue::Pair(qp)) => Ok(qp.clone()),
        _ => Err(no_object("there is no such queue pair")),
    }
}

fn cq(hca: &Hca, number: u32) -> Result<Arc<Cq>> {
    hca.cqs
        .get(number)
        .ok_or(no_such("the queue pair's completion queue does not exist"))
}

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateQpIn>()?;
    let context = input.qpc();
    if !matches!(
        context.st(),
        service::RC
            | service::UC
            | service::UD
            | service::XRC
            | service::GSI
            | service::RAW_ETHERNET
            | service::REG_UMR
    ) {
        return Err(bad_parameter("there is no such service"));
    }
    let has_sq = !context.no_sq();
    let has_rq = context.rq_type() == RQ_OWN
        && context.st() != service::XRC
        && context.log_rq_size() + context.log_rq_stride() > 0;
    let rq_stride = context.log_rq_stride() + MIN_RQ_STRIDE;
    let sq_bytes = if has_sq {
        1_u64 << (context.log_sq_size() + SQ_STRIDE)
    } else {
        0
    };
    let rq_bytes = if has_rq {
        1_u64 << (context.log_rq_size() + rq_stride)
    } else {
        0
    };
    let (page_size, offset) = (context.log_page_size(), context.page_offset());
    let buffer = Buffer::new(page_size, offset, rq_bytes + sq_bytes, pas, &hca.budget).map_err(|error| {
        let few = bad_parameter("the queue pair's pages do not fit its size").with_syndrome(syndrome::QP_PAGES);
        bad_buffer(&error, few)
    })?;
    // The driver creates its own QP for memory keys (REG_UMR) without a protection domain.
    if (context.st() != service::REG_UMR || context.pd() != 0) && hca.pds.get(context.pd()).is_none() {
        return Err(no_such("the queue pair's protection domain does not exist"));
    }
    let part = |start, log_size, stride| WorkQueue::part(buffer.clone(), start, log_size, stride, context.dbr_addr());
    let mut held: Vec<Reference> = Vec::new();
    if has_sq {
        let uar = hca.uars.get(context.uar_page());
        held.push(
            uar.ok_or(no_such("the queue pair's UAR does not exist"))?
                .references
                .acquire(),
        );
    }
    let receives = match context.rq_type() {
        _ if has_rq => ReceiveSource::Own(part(0, context.log_rq_size(), rq_stride)),
        RQ_OWN | RQ_NONE => ReceiveSource::None,
        RQ_SHARED => {
            let number = context.srqn_rmpn_xrqn();
            match (hca.rmps.get(number), hca.xrc_srqs.get(number)) {
                (_, Some(srq)) => {
                    held.push(srq.references.acquire());
                    ReceiveSource::Xrc
                }
                (Some(rmp), _) => {
                    held.push(rmp.references.acquire());
                    ReceiveSource::Pool(rmp)
                }
                _ => return Err(no_such("the queue pair's shared receive queue does not exist")),
            }
        }
        _ => return Err(bad_parameter("there is no such kind of receive queue")),
    };
    // An XRC target QP names no SRQ; its packets do.
    let receives = if context.st() == service::XRC {
        ReceiveSource::Xrc
    } else {
        receives
    };
    if context.st() == service::XRC {
        let xrcd = hca.xrcds.get(context.xrcd());
        // An initiator receives nothing, and its driver need not name a domain.
        if xrcd.is_none() && !has_sq {
            return Err(no_such("the queue pair's XRC domain does not exist"));
        }
        held.extend(xrcd.map(|xrcd| xrcd.references.acquire()));
    }
    // For a side the QP does not have, the context may name a CQ or none.
    let side = |has: bool, number: u32| {
        if has || number != 0 {
            cq(hca, number).map(Some)
        } else {
            Ok(None)
        }
    };
    let parts = QpParts {
        send_cq: side(has_sq, context.cqn_snd())?,
        receive_cq: side(has_rq, context.cqn_rcv())?,
        send_queue: has_sq.then(|| part(rq_bytes, context.log_sq_size(), SQ_STRIDE)),
        receives,
        held,
    };
    let send_wqes = if has_sq { 1 << context.log_sq_size() } else { 0 };
    let vport = hca.vport.read();
    let make = |number| Qp::new(number, context.clone(), parts, &vport);
    let full = Refusal::new(Status::BadResource, "no QP number is left").with_syndrome(syndrome::NO_MORE_QPS);
    let qp = hca.add_queue_pair(send_wqes, make).ok_or(full)?;
    let mut output = CreateQpOut::default();
    output.set_qpn(qp.number);
    Reply::new(output)
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyQpIn>()?.qpn();
    let qp = find(&firmware.hca, number)?;
    if qp.references.count() > 0 {
        return Err(in_use("the queue pair is in a multicast group"));
    }
    report_in_flight(&firmware.hca, &qp);
    // Waits for a packet in progress; no guest memory is touched after this.
    let vport = firmware.hca.vport.read().clone();
    qp.retire(&vport, &firmware.hca.queue_counters);
    firmware.hca.revoke_payloads_of(&qp);
    firmware.hca.scheduler.cancel(Task::Queue(number));
    firmware.hca.remove_queue_pair(number);
    Reply::ok::<DestroyQpOut>()
}

/// Reports the oldest WQE of a send queue that is executing, or was posted. WQEs of a queue pair in error are flushed
/// without the driver's doing.
fn report_in_flight(hca: &Hca, qp: &Qp) {
    let Some(ring) = qp
        .send_queue
        .as_ref()
        .filter(|_| qp.parameters().state == QpState::ReadyToSend)
    else {
        return;
    };
    let requester = qp.requester.lock();
    let mut control = ControlSegment::default();
    let index = requester.consumer();
    if let Some(message) = requester.oldest() {
        control = *message.control();
    } else if !ring
        .look_at_send_producer(&hca.dma)
        .is_ok_and(|producer| producer != index)
        || ring
            .look_at_send_bytes(&hca.dma, index, control.as_mut_bytes())
            .is_err()
    {
        return;
    }
    drop(requester);
    let text = format_args!(
        "queue pair {:#x} is destroyed before WQE {index:#x} completes",
        qp.number
    );
    hca.findings
        .report(Finding::QpInFlight, queue(qp.number), control.as_bytes(), text);
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let qp = find(&firmware.hca, input.fields::<QueryQpIn>()?.qpn())?;
    let mut output = QueryQpOut::default();
    *output.qpc_mut() = qp.query();
    // Older drivers make no room for the extension behind the context.
    let extension = output.qp_pas_or_qpc_ext_and_pas().len();
    Ok(Reply {
        fixed: QueryQpOut::SIZE - extension,
        ..Reply::new(output)?
    })
}

/// Executes a state transition. All such commands have number, mask and context at the same offsets; those to reset and
/// error have only the number.
fn transition(firmware: &Firmware, input: Input<'_>) -> Result {
    let opcode = input.opcode();
    let (number, mask, context) = match opcode {
        Opcode::QP_2ERR | Opcode::QP_2RST => (input.fields::<Qp2errIn>()?.qpn(), 0, &Qpc::default()),
        _ => {
            let input = input.fields::<Rst2initQpIn>()?;
            (input.qpn(), input.opt_param_mask(), input.qpc())
        }
    };
    let qp = find(&firmware.hca, number)?;
    if opcode == Opcode::RTS2RTS_QP && mask & OPTIONAL_PRIMARY_PATH != 0 {
        let refusal = bad_parameter("the address path cannot be changed in this state");
        return Err(refusal.with_syndrome(syndrome::OPTIONAL_PARAMETER));
    }
    // The vport must not be locked while waiting for the data path, which reads it.
    let vport = firmware.hca.vport.read().clone();
    qp.transition(opcode, mask, context, &vport, &firmware.hca.queue_counters)
        .map_err(|_| Refusal::new(Status::BadQpState, "the queue pair is in another state"))?;
    if matches!(opcode, Opcode::QP_2ERR | Opcode::QP_2RST) {
        firmware.hca.revoke_payloads_of(&qp);
        firmware.hca.scheduler.cancel(Task::Queue(number));
    }
    // WQEs may be posted already.
    firmware.hca.scheduler.schedule(number);
    Reply::ok::<Rst2initQpOut>()
}

fn attach_to_mcg(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<AttachToMcgIn>()?;
    let qp = find(&firmware.hca, input.qpn())?;
    let mut groups = firmware.hca.multicast_groups.lock();
    if groups.len() >= MAX_MCG && !groups.contains_key(input.multicast_gid()) {
        return Err(TABLE_FULL);
    }
    let members = groups.entry(*input.multicast_gid()).or_default();
    if members.len() >= MAX_QP_MCG {
        return Err(TABLE_FULL);
    }
    if members.iter().all(|(number, _)| *number != qp.number) {
        members.push((qp.number, qp.references.acquire()));
    }
    Reply::ok::<AttachToMcgOut>()
}

fn detach_from_mcg(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<DetachFromMcgIn>()?;
    let mut groups = firmware.hca.multicast_groups.lock();
    let members = groups
        .get_mut(input.multicast_gid())
        .ok_or(no_object("there is no such multicast group"))?;
    let before = members.len();
    members.retain(|(number, _)| *number != input.qpn());
    let found = members.len() < before;
    if members.is_empty() {
        groups.remove(input.multicast_gid());
    }
    if !found {
        return Err(no_object("the queue pair is not in the group"));
    }
    Reply::ok::<DetachFromMcgOut>()
}
