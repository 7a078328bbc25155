//! Commands on receive memory pools and XRC shared receive queues.

use mlx5_prm::opcode::Opcode;
use mlx5_prm::wq::*;
use parking_lot::Mutex;

use super::Firmware;
use super::command::{Commands, Input, Reply, Result, TABLE_FULL, bad_parameter, in_use, no_object, no_such};
use super::rq::{require_pd, work_queue};
use crate::hca::Hca;
use crate::hca::event::{EventQueue, event_data};
use crate::hca::refcount::RefCount;
use crate::hca::srq::{LIMIT_EVENT, ReceiveList, Rmp, XrcSrq};
use crate::hca::wq::RingContext;

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_RMP, create_rmp),
    (Opcode::MODIFY_RMP, modify_rmp),
    (Opcode::DESTROY_RMP, destroy_rmp),
    (Opcode::QUERY_RMP, query_rmp),
    (Opcode::CREATE_XRC_SRQ, create_xrc_srq),
    (Opcode::DESTROY_XRC_SRQ, destroy_xrc_srq),
    (Opcode::QUERY_XRC_SRQ, query_xrc_srq),
    (Opcode::ARM_XRC_SRQ, arm_xrc_srq),
];

/// States of an RMP (`MLX5_RMPC_STATE_*`, mlx5_ifc.h).
const RMP_READY: u8 = 1;
const RMP_ERROR: u8 = 3;
/// State of an XRC SRQ in error (`MLX5_XRC_SRQC_STATE_ERROR`, mlx5_ifc.h).
const XRC_SRQ_ERROR: u8 = 1;
/// Log2 of the smallest stride of an XRC SRQ in bytes.
const XRC_SRQ_MIN_STRIDE: u8 = 4;

/// Arms the limit event; raises it at once if fewer WQEs than `limit` are left.
fn set_limit(hca: &Hca, list: &ReceiveList, number: u32, limit: u16) {
    if list.set_limit(&hca.dma, limit) {
        hca.eqs.announce(LIMIT_EVENT, 0, &event_data(EventQueue::Qp, number));
    }
}

fn create_rmp(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateRmpIn>()?;
    let context = input.ctx();
    if context.state() != RMP_READY {
        return Err(bad_parameter("a memory pool begins as ready"));
    }
    require_pd(hca, context.wq().pd())?;
    let wq = work_queue(hca, context.wq(), pas)?;
    let make = |number| Rmp {
        number,
        list: ReceiveList::new(wq),
        context: Mutex::new(context.clone()),
        references: RefCount::default(),
    };
    let rmp = hca.rmps.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateRmpOut::default();
    output.set_rmpn(rmp.number);
    Reply::new(output)
}

fn modify_rmp(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ModifyRmpIn>()?;
    let rmp = firmware
        .hca
        .rmps
        .get(input.rmpn())
        .ok_or(no_object("there is no such memory pool"))?;
    let mut context = rmp.context.lock();
    let new = input.ctx();
    if input.bitmask().lwm() {
        set_limit(&firmware.hca, &rmp.list, rmp.number, new.wq().lwm());
    }
    match new.state() {
        RMP_READY => {}
        RMP_ERROR => context.set_state(RMP_ERROR),
        _ => return Err(bad_parameter("a memory pool is ready or in error")),
    }
    Reply::ok::<ModifyRmpOut>()
}

fn destroy_rmp(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyRmpIn>()?.rmpn();
    let rmp = firmware
        .hca
        .rmps
        .get(number)
        .ok_or(no_object("there is no such memory pool"))?;
    if rmp.references.count() > 0 {
        return Err(in_use("queues take WQEs from the memory pool"));
    }
    firmware.hca.rmps.remove(number);
    Reply::ok::<DestroyRmpOut>()
}

fn query_rmp(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<QueryRmpIn>()?.rmpn();
    let rmp = firmware
        .hca
        .rmps
        .get(number)
        .ok_or(no_object("there is no such memory pool"))?;
    let mut output = QueryRmpOut::default();
    let context = output.rmp_context_mut();
    *context = rmp.context.lock().clone();
    context.wq_mut().set_lwm(rmp.list.limit());
    if rmp.list.has_failed() {
        context.set_state(RMP_ERROR);
    }
    Reply::new(output)
}

impl From<&XrcSrqc> for RingContext {
    fn from(context: &XrcSrqc) -> Self {
        Self {
            wq_type: 0,
            log_page_size: context.log_page_size(),
            page_offset: context.page_offset(),
            log_size: context.log_xrc_srq_size(),
            log_stride: context.log_rq_stride() + XRC_SRQ_MIN_STRIDE,
            dbr_addr: u64::from(context.db_record_addr_h()) << 32 | u64::from(context.db_record_addr_l()) << 2,
        }
    }
}

fn create_xrc_srq(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateXrcSrqIn>()?;
    let context = input.xrc_srq_context_entry();
    let cq = hca
        .cqs
        .get(context.cqn())
        .ok_or(no_such("the shared receive queue's completion queue does not exist"))?;
    let xrcd = hca
        .xrcds
        .get(context.xrcd())
        .ok_or(no_such("the shared receive queue's domain does not exist"))?;
    require_pd(hca, context.pd())?;
    let wq = work_queue(hca, context, pas)?;
    let make = |number| XrcSrq {
        number,
        list: ReceiveList::new(wq),
        held: Mutex::new(vec![cq.references.acquire(), xrcd.references.acquire()]),
        cq,
        context: Mutex::new(context.clone()),
        references: RefCount::default(),
    };
    let srq = hca.xrc_srqs.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateXrcSrqOut::default();
    output.set_xrc_srqn(srq.number);
    Reply::new(output)
}

fn destroy_xrc_srq(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyXrcSrqIn>()?.xrc_srqn();
    let srq = firmware
        .hca
        .xrc_srqs
        .get(number)
        .ok_or(no_object("there is no such shared receive queue"))?;
    if srq.references.count() > 0 {
        return Err(in_use("queue pairs take WQEs from the shared receive queue"));
    }
    srq.retire();
    firmware.hca.xrc_srqs.remove(number);
    Reply::ok::<DestroyXrcSrqOut>()
}

fn query_xrc_srq(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<QueryXrcSrqIn>()?.xrc_srqn();
    let srq = firmware
        .hca
        .xrc_srqs
        .get(number)
        .ok_or(no_object("there is no such shared receive queue"))?;
    let mut output = QueryXrcSrqOut::default();
    let context = output.xrc_srq_context_entry_mut();
    *context = srq.context.lock().clone();
    context.set_lwm(srq.list.limit());
    if srq.list.has_failed() {
        context.set_state(XRC_SRQ_ERROR);
    }
    Reply::new(output)
}

fn arm_xrc_srq(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ArmXrcSrqIn>()?;
    let srq = firmware
        .hca
        .xrc_srqs
        .get(input.xrc_srqn())
        .ok_or(no_object("there is no such shared receive queue"))?;
    set_limit(&firmware.hca, &srq.list, srq.number, input.lwm());
    Reply::ok::<ArmXrcSrqOut>()
}
