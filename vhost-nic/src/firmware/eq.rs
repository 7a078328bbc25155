//! Commands on event queues.

use mlx5_prm::eq::*;
use mlx5_prm::opcode::Opcode;

use super::Firmware;
use super::command::{
    Commands, Input, Reply, Result, TABLE_FULL, bad_buffer, bad_parameter, in_use, no_object, no_such,
};
use crate::hca::buffer::Buffer;
use crate::hca::eq::{Eq, EqResources, MAX_LOG_EQ_SIZE, NewEq};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_EQ, create),
    (Opcode::DESTROY_EQ, destroy),
    (Opcode::QUERY_EQ, query),
];

/// Log2 of the bytes of an EQE.
const LOG_EQE: u8 = 6;

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, pas) = input.with_tail::<CreateEqIn>()?;
    let context = input.eq_context_entry();
    if context.log_eq_size() > MAX_LOG_EQ_SIZE {
        return Err(bad_parameter("the event queue is too large"));
    }
    let uar = hca
        .uars
        .get(context.uar_page())
        .ok_or(no_such("the event queue's UAR does not exist"))?;
    if context.intr() >= hca.msix.vectors() {
        return Err(bad_parameter("the event queue's interrupt vector does not exist"));
    }
    let length = 1 << (context.log_eq_size() + LOG_EQE);
    let buffer = Buffer::new(context.log_page_size(), context.page_offset(), length, pas, &hca.budget)
        .map_err(|error| bad_buffer(&error, bad_parameter("the event queue's pages do not fit its size")))?;
    // The mask is four words of 64 bits, the lowest first (core/eq.c); this device has no event type from 64 on.
    let mask = input
        .event_bitmask()
        .first_chunk()
        .map_or(0, |word| u64::from_be_bytes(*word));
    let new = NewEq {
        context: context.clone(),
        mask,
        buffer,
        uar: uar.references.acquire(),
    };
    let resources = EqResources {
        dma: hca.dma.clone(),
        msix: hca.msix.clone(),
        findings: hca.findings.clone(),
        tracer: hca.tracer,
        door: hca.door.clone(),
        pcie_latency: hca.pcie_latency.clone(),
    };
    let make = |number| Eq::new(number, new, resources);
    let eq = hca.eqs.table.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateEqOut::default();
    output.set_eq_number(eq.number as u8);
    Reply::new(output)
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyEqIn>()?.eq_number().into();
    let eq = firmware
        .hca
        .eqs
        .table
        .get(number)
        .ok_or(no_object("there is no such event queue"))?;
    if eq.references.count() > 0 {
        return Err(in_use("completion queues report to the event queue"));
    }
    eq.retire();
    firmware
        .hca
        .account_destroyed(|| eq.account(), || firmware.hca.eqs.table.remove(number));
    Reply::ok::<DestroyEqOut>()
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<QueryEqIn>()?.eq_number().into();
    let eq = firmware
        .hca
        .eqs
        .table
        .get(number)
        .ok_or(no_object("there is no such event queue"))?;
    let mut output = QueryEqOut::default();
    *output.eq_context_entry_mut() = eq.query();
    Reply::new(output)
}
