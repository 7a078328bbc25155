//! Commands on UARs, protection domains, transport domains, XRC domains and user contexts.

use std::sync::Arc;

use mlx5_prm::domain::*;
use mlx5_prm::opcode::Opcode;

use super::Firmware;
use super::command::{Commands, Input, Reply, Result, TABLE_FULL, in_use, no_object};
use crate::hca::domain::Domain;
use crate::hca::object_table::Table;

pub(super) const COMMANDS: Commands = &[
    (Opcode::ALLOC_UAR, alloc_uar),
    (Opcode::DEALLOC_UAR, dealloc_uar),
    (Opcode::ALLOC_PD, alloc_pd),
    (Opcode::DEALLOC_PD, dealloc_pd),
    (Opcode::ALLOC_TRANSPORT_DOMAIN, alloc_transport_domain),
    (Opcode::DEALLOC_TRANSPORT_DOMAIN, dealloc_transport_domain),
    (Opcode::ALLOC_XRCD, alloc_xrcd),
    (Opcode::DEALLOC_XRCD, dealloc_xrcd),
    (Opcode::CREATE_UCTX, create_uctx),
    (Opcode::DESTROY_UCTX, destroy_uctx),
];

fn alloc(table: &Table<Domain>) -> Result<u32> {
    table
        .insert_with(Domain::new)
        .map(|domain| domain.number)
        .ok_or(TABLE_FULL)
}

fn dealloc(table: &Table<Domain>, number: u32) -> Result<()> {
    let domain: Arc<Domain> = table.get(number).ok_or(no_object("there is no such domain"))?;
    if domain.references.count() > 0 {
        return Err(in_use("other objects refer to the domain"));
    }
    table.remove(number);
    Ok(())
}

fn alloc_uar(firmware: &Firmware, _: Input<'_>) -> Result {
    let mut output = AllocUarOut::default();
    output.set_uar(alloc(&firmware.hca.uars)?);
    Reply::new(output)
}

fn dealloc_uar(firmware: &Firmware, input: Input<'_>) -> Result {
    dealloc(&firmware.hca.uars, input.fields::<DeallocUarIn>()?.uar())?;
    Reply::ok::<DeallocUarOut>()
}

fn alloc_pd(firmware: &Firmware, _: Input<'_>) -> Result {
    let mut output = AllocPdOut::default();
    output.set_pd(alloc(&firmware.hca.pds)?);
    Reply::new(output)
}

fn dealloc_pd(firmware: &Firmware, input: Input<'_>) -> Result {
    dealloc(&firmware.hca.pds, input.fields::<DeallocPdIn>()?.pd())?;
    Reply::ok::<DeallocPdOut>()
}

fn alloc_transport_domain(firmware: &Firmware, _: Input<'_>) -> Result {
    let mut output = AllocTransportDomainOut::default();
    output.set_transport_domain(alloc(&firmware.hca.transport_domains)?);
    Reply::new(output)
}

fn dealloc_transport_domain(firmware: &Firmware, input: Input<'_>) -> Result {
    dealloc(
        &firmware.hca.transport_domains,
        input.fields::<DeallocTransportDomainIn>()?.transport_domain(),
    )?;
    Reply::ok::<DeallocTransportDomainOut>()
}

fn alloc_xrcd(firmware: &Firmware, _: Input<'_>) -> Result {
    let mut output = AllocXrcdOut::default();
    output.set_xrcd(alloc(&firmware.hca.xrcds)?);
    Reply::new(output)
}

fn dealloc_xrcd(firmware: &Firmware, input: Input<'_>) -> Result {
    dealloc(&firmware.hca.xrcds, input.fields::<DeallocXrcdIn>()?.xrcd())?;
    Reply::ok::<DeallocXrcdOut>()
}

fn create_uctx(firmware: &Firmware, _: Input<'_>) -> Result {
    let mut output = CreateUctxOut::default();
    output.set_uid(alloc(&firmware.hca.uctxs)? as u16);
    Reply::new(output)
}

fn destroy_uctx(firmware: &Firmware, input: Input<'_>) -> Result {
    dealloc(&firmware.hca.uctxs, input.fields::<DestroyUctxIn>()?.uid().into())?;
    Reply::ok::<DestroyUctxOut>()
}
