//! Protection, transport and XRC domains.

use mlx5_prm::domain::*;
use mlx5_prm::opcode::Opcode;

use crate::command::Result;
use crate::hca::Hca;

/// Allocates a protection domain.
pub fn alloc_pd(hca: &Hca) -> Result<u32> {
    hca.commands
        .call(Opcode::ALLOC_PD, &AllocPdIn::default())
        .map(|output: AllocPdOut| output.pd())
}

/// Frees a protection domain.
pub fn dealloc_pd(hca: &Hca, pd: u32) -> Result<()> {
    let mut input = DeallocPdIn::default();
    input.set_pd(pd);
    hca.commands
        .call::<_, DeallocPdOut>(Opcode::DEALLOC_PD, &input)
        .map(drop)
}

/// Allocates a transport domain.
pub fn alloc_transport_domain(hca: &Hca) -> Result<u32> {
    let input = AllocTransportDomainIn::default();
    let output: AllocTransportDomainOut = hca.commands.call(Opcode::ALLOC_TRANSPORT_DOMAIN, &input)?;
    Ok(output.transport_domain())
}

/// Frees a transport domain.
pub fn dealloc_transport_domain(hca: &Hca, domain: u32) -> Result<()> {
    let mut input = DeallocTransportDomainIn::default();
    input.set_transport_domain(domain);
    hca.commands
        .call::<_, DeallocTransportDomainOut>(Opcode::DEALLOC_TRANSPORT_DOMAIN, &input)
        .map(drop)
}

/// Allocates an XRC domain.
pub fn alloc_xrcd(hca: &Hca) -> Result<u32> {
    hca.commands
        .call(Opcode::ALLOC_XRCD, &AllocXrcdIn::default())
        .map(|output: AllocXrcdOut| output.xrcd())
}

/// Frees an XRC domain.
pub fn dealloc_xrcd(hca: &Hca, xrcd: u32) -> Result<()> {
    let mut input = DeallocXrcdIn::default();
    input.set_xrcd(xrcd);
    hca.commands
        .call::<_, DeallocXrcdOut>(Opcode::DEALLOC_XRCD, &input)
        .map(drop)
}
