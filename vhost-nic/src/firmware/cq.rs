//! Commands on completion queues.

use mlx5_prm::command::Status;
use mlx5_prm::cq::*;
use mlx5_prm::opcode::Opcode;

use super::Firmware;
use super::command::{
    Commands, Input, Refusal, Reply, Result, TABLE_FULL, bad_buffer, bad_parameter, in_use, no_object, no_such,
};
use crate::hca::Hca;
use crate::hca::buffer::Buffer;
use crate::hca::cq::{Cq, CqResources, MAX_LOG_CQ_SIZE, entry_size, is_supported};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_CQ, create),
    (Opcode::DESTROY_CQ, destroy),
    (Opcode::QUERY_CQ, query),
    (Opcode::MODIFY_CQ, modify),
];

/// `op_mod` of MODIFY_CQ (`MLX5_CQ_OPMOD_RESIZE`, cq.h).
const OPMOD_MODIFY: u16 = 0;
const OPMOD_RESIZE: u16 = 1;
/// Fields that MODIFY_CQ changes (`MLX5_CQ_MODIFY_*`, cq.h).
const MODIFY_PERIOD: u32 = 1 << 0;
const MODIFY_COUNT: u32 = 1 << 1;
const MODIFY_OVERRUN: u32 = 1 << 2;
const MODIFY_PERIOD_MODE: u32 = 1 << 4;

fn buffer(hca: &Hca, context: &Cqc, pas: &[u8]) -> Result<Buffer> {
    if context.log_cq_size() > MAX_LOG_CQ_SIZE {
        return Err(bad_parameter("the completion queue is too large"));
    }
    let entry = entry_size(context).ok_or(bad_parameter("there are no completions of that size"))?;
    Buffer::new(
        context.log_page_size(),
        context.page_offset(),
        entry << context.log_cq_size(),
        pas,
        &hca.budget,
    )
    .map_err(|error| {
        bad_buffer(
            &error,
            bad_parameter("the completion queue's pages do not fit its size"),
        )
    })
}

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateCqIn>()?;
    let context = input.cq_context();
    let eq = hca
        .eqs
        .table
        .get(context.c_eqn_or_apu_element())
        .ok_or(no_such("the completion queue's event queue does not exist"))?;
    let uar = hca
        .uars
        .get(context.uar_page())
        .ok_or(no_such("the completion queue's UAR does not exist"))?;
    if !is_supported(context) {
        return Err(bad_parameter("there is no such compression of completions"));
    }
    let buffer = buffer(hca, context, pas)?;
    let resources = CqResources {
        dma: hca.dma.clone(),
        eqs: hca.eqs.clone(),
        scheduler: hca.scheduler.clone(),
        findings: hca.findings.clone(),
        counters: hca.completion_counters.clone(),
        clock: hca.clock.clone(),
        tracer: hca.tracer,
        door: hca.door.clone(),
        pcie_latency: hca.pcie_latency.clone(),
        compression: firmware.nv_config.lock().compression(),
    };
    let make = |number| Cq::new(number, context.clone(), buffer, eq, resources, uar.references.acquire());
    let cq = hca.cqs.insert_sized(Cq::size(context), make).ok_or(TABLE_FULL)?;
    let mut output = CreateCqOut::default();
    output.set_cqn(cq.number);
    Reply::new(output)
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyCqIn>()?.cqn();
    let cq = firmware
        .hca
        .cqs
        .get(number)
        .ok_or(no_object("there is no such completion queue"))?;
    if cq.references.count() > 0 {
        return Err(in_use("other queues complete to the completion queue"));
    }
    cq.retire();
    firmware
        .hca
        .account_destroyed(|| cq.account(), || firmware.hca.cqs.remove(number));
    Reply::ok::<DestroyCqOut>()
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<QueryCqIn>()?.cqn();
    let cq = firmware
        .hca
        .cqs
        .get(number)
        .ok_or(no_object("there is no such completion queue"))?;
    let mut output = QueryCqOut::default();
    *output.cq_context_mut() = cq.query();
    Reply::new(output)
}

fn modify(firmware: &Firmware, input: Input<'_>) -> Result {
    let op_mod = input.op_mod();
    let (input, pas) = input.with_tail::<ModifyCqIn>()?;
    let cq = firmware
        .hca
        .cqs
        .get(input.cqn())
        .ok_or(no_object("there is no such completion queue"))?;
    let new = input.cq_context();
    match op_mod {
        OPMOD_RESIZE => {
            if !cq.resize(new, buffer(&firmware.hca, new, pas)?) {
                let reason = "the completion queue holds more completions than that";
                return Err(Refusal::new(Status::BadSizeOutstandingCqes, reason));
            }
        }
        OPMOD_MODIFY => {
            let select = u32::from_be_bytes(*input.modify_field_select_resize_field_select());
            cq.modify(|context| {
                if select & MODIFY_PERIOD != 0 {
                    context.set_cq_period(new.cq_period());
                }
                if select & MODIFY_COUNT != 0 {
                    context.set_cq_max_count(new.cq_max_count());
                }
                if select & MODIFY_OVERRUN != 0 {
                    context.set_oi(new.oi());
                }
                if select & MODIFY_PERIOD_MODE != 0 {
                    context.set_cq_period_mode(new.cq_period_mode());
                }
            });
        }
        _ => return Err(bad_parameter("there is no such way to modify a completion queue")),
    }
    Reply::ok::<ModifyCqOut>()
}
