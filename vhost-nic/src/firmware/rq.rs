//! Commands on receive queues.

use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::wq::*;

use super::Firmware;
use super::command::{
    Commands, Input, Reply, Result, TABLE_FULL, bad_buffer, bad_parameter, in_use, no_object, no_such,
};
use crate::hca::refcount::Reference;
use crate::hca::rq::{QueueState, Rq};
use crate::hca::wq::{RingContext, WorkQueue, WqError};
use crate::hca::{Hca, Queue};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_RQ, create),
    (Opcode::MODIFY_RQ, modify),
    (Opcode::DESTROY_RQ, destroy),
    (Opcode::QUERY_RQ, query),
];

/// Location of a receive queue's WQEs (`MLX5_RQC_MEM_RQ_TYPE_*`, mlx5_ifc.h).
const MEMORY_INLINE: u8 = 0;
/// Fields that MODIFY_RQ changes besides the state (`MLX5_MODIFY_RQ_IN_MODIFY_BITMASK_*`, mlx5_ifc.h).
const MODIFY_VSD: u64 = 1 << 1;

pub(super) fn work_queue(hca: &Hca, context: impl Into<RingContext>, pas: &[u8]) -> Result<WorkQueue> {
    WorkQueue::new(context.into(), pas, &hca.budget).map_err(|error| {
        let invalid = bad_parameter("the work queue's context or pages make no ring");
        match error {
            WqError::Buffer(error) => bad_buffer(&error, invalid),
            _ => invalid,
        }
    })
}

/// Returns a reference to the protection domain; `None` for number 0, which is no domain: the driver names it in its
/// drop queue, to which it never posts (`mlx5e_build_drop_rq_param`, core/en/params.c).
pub(super) fn require_pd(hca: &Hca, pd: u32) -> Result<Option<Reference>> {
    if pd == 0 {
        return Ok(None);
    }
    let pd = hca
        .pds
        .get(pd)
        .ok_or(no_such("the queue's protection domain does not exist"))?;
    Ok(Some(pd.references.acquire()))
}

/// Checks a transition from state `now` to `next`; `claimed` is the current state as the command names it.
pub(super) fn next_state(now: QueueState, claimed: u8, next: u8) -> Result<QueueState> {
    if claimed != now as u8 {
        return Err(bad_parameter("the queue is not in that state"));
    }
    QueueState::new(next)
        .filter(|next| now.may_become(*next))
        .ok_or(bad_parameter("the queue cannot be brought to that state"))
}

pub(super) fn find(hca: &Hca, number: u32) -> Result<Arc<Rq>> {
    match hca.queues.get(number).as_deref() {
        Some(Queue::Receive(rq)) => Ok(rq.clone()),
        _ => Err(no_object("there is no such receive queue")),
    }
}

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateRqIn>()?;
    let context = input.ctx();
    if context.mem_rq_type() != MEMORY_INLINE {
        return Err(bad_parameter("receive queues on a memory pool are not supported"));
    }
    let cq = hca
        .cqs
        .get(context.cqn())
        .ok_or(no_such("the receive queue's completion queue does not exist"))?;
    let pd = require_pd(hca, context.wq().pd())?;
    let counters = match context.counter_set_id() {
        0 => None,
        id => Some(
            hca.queue_counters
                .get(id.into())
                .ok_or(no_such("the receive queue's counters do not exist"))?,
        ),
    };
    let wq = work_queue(hca, context.wq(), pas)?;
    let make = |number| Queue::Receive(Arc::new(Rq::new(number, context.clone(), wq, cq, counters, pd)));
    let queue = hca.queues.insert_sized(size_of::<Rq>(), make).ok_or(TABLE_FULL)?;
    let mut output = CreateRqOut::default();
    output.set_rqn(queue.number());
    Reply::new(output)
}

fn modify(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ModifyRqIn>()?;
    let rq = find(&firmware.hca, input.rqn())?;
    let mut state = rq.lock();
    let next = next_state(state.state, input.rq_state(), input.ctx().state())?;
    if input.modify_bitmask() & MODIFY_VSD != 0 {
        state.context.set_vsd(input.ctx().vsd());
    }
    if next != state.state {
        state.become_state(next);
        // The driver counts on no completion after this.
        rq.cq.end_burst();
    }
    Reply::ok::<ModifyRqOut>()
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyRqIn>()?.rqn();
    let rq = find(&firmware.hca, number)?;
    if rq.references.count() > 0 {
        return Err(in_use("tables or TIRs send to the receive queue"));
    }
    // Waits for a receive in progress; no guest memory is touched after this.
    rq.retire();
    firmware.hca.remove_queue(number);
    Reply::ok::<DestroyRqOut>()
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let rq = find(&firmware.hca, input.fields::<QueryRqIn>()?.rqn())?;
    let state = rq.lock();
    let mut output = QueryRqOut::default();
    *output.rq_context_mut() = state.context.clone();
    output.rq_context_mut().wq_mut().set_hw_counter(state.consumer.into());
    Reply::new(output)
}
