//! Commands on send queues.

use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::wq::*;

use super::Firmware;
use super::command::{Commands, Input, Reply, Result, TABLE_FULL, bad_parameter, no_object, no_such};
use super::rq::{next_state, require_pd, work_queue};
use crate::hca::sq::Sq;
use crate::hca::wq::{SEND_STRIDE, WqType};
use crate::hca::{Hca, Queue};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_SQ, create),
    (Opcode::MODIFY_SQ, modify),
    (Opcode::DESTROY_SQ, destroy),
    (Opcode::QUERY_SQ, query),
];

fn find(hca: &Hca, number: u32) -> Result<Arc<Sq>> {
    match hca.queues.get(number).as_deref() {
        Some(Queue::Send(sq)) => Ok(sq.clone()),
        _ => Err(no_object("there is no such send queue")),
    }
}

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateSqIn>()?;
    let context = input.ctx();
    if context.hairpin() {
        return Err(bad_parameter("hairpin queues are not supported"));
    }
    let cq = hca
        .cqs
        .get(context.cqn())
        .ok_or(no_such("the send queue's completion queue does not exist"))?;
    let mut held = Vec::from_iter(require_pd(hca, context.wq().pd())?);
    let uar = hca
        .uars
        .get(context.wq().uar_page())
        .ok_or(no_such("the send queue's UAR does not exist"))?;
    held.push(uar.references.acquire());
    let mut transport_domain = None;
    match context.tis_lst_sz() {
        0 => {}
        1 => {
            let tis = hca
                .tises
                .get(context.tis_num_0())
                .ok_or(no_such("the send queue's TIS does not exist"))?;
            transport_domain = Some(tis.context.read().transport_domain());
            held.push(tis.references.acquire());
        }
        _ => return Err(bad_parameter("a send queue has one TIS at most")),
    }
    if context.wq().log_wq_stride() != SEND_STRIDE {
        return Err(bad_parameter("send WQEs are counted in units of 64 bytes"));
    }
    let wq = work_queue(hca, context.wq(), pas)?;
    if wq.wq_type != WqType::Cyclic {
        return Err(bad_parameter("send queues are rings"));
    }
    let make = |number| {
        Queue::Send(Arc::new(Sq::new(
            number,
            context.clone(),
            wq,
            cq,
            transport_domain,
            held,
        )))
    };
    let queue = hca.queues.insert_sized(size_of::<Sq>(), make).ok_or(TABLE_FULL)?;
    let mut output = CreateSqOut::default();
    output.set_sqn(queue.number());
    Reply::new(output)
}

fn modify(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ModifySqIn>()?;
    let sq = find(&firmware.hca, input.sqn())?;
    let mut state = sq.lock();
    let next = next_state(state.state, input.sq_state(), input.ctx().state())?;
    if next != state.state {
        sq.blue_flame.clear();
        state.become_state(next);
    }
    Reply::ok::<ModifySqOut>()
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroySqIn>()?.sqn();
    // Waits for a frame that is being assembled; no guest memory is touched after this.
    find(&firmware.hca, number)?.retire();
    firmware.hca.remove_queue(number);
    Reply::ok::<DestroySqOut>()
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let sq = find(&firmware.hca, input.fields::<QuerySqIn>()?.sqn())?;
    let state = sq.lock();
    let mut output = QuerySqOut::default();
    *output.sq_context_mut() = state.context.clone();
    output.sq_context_mut().wq_mut().set_hw_counter(state.consumer.into());
    Reply::new(output)
}
