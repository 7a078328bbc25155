//! Domains, keys, and what is between queues and the wire: PD, transport domain, mkey, TIS, RQT, TIR.

use mlx5_prm::domain::*;
use mlx5_prm::mkey::*;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::tis_tir_rqt::*;

use super::command::Result;
use super::hca::Hca;

/// The low byte of keys.
const KEY_VARIANT: u8 = 0x5a;
/// The queue pair of a key that any queue may use.
const ANY_QP: u32 = 0xff_ffff;
/// Toeplitz (`MLX5_RX_HASH_FN_TOEPLITZ`).
const TOEPLITZ: u8 = 2;
/// `MLX5_TIRC_DISP_TYPE_INDIRECT`.
const INDIRECT: u8 = 1;
/// A TIR takes the function's own frames: `MLX5_TIRC_SELF_LB_BLOCK_BLOCK_UNICAST` and `_MULTICAST`, whose names say the contrary of what the
/// driver sets them for (`mlx5e_modify_tirs_lb`).
pub const ALLOW_LOOPBACK: u8 = 3;

/// Allocates a protection domain.
pub fn alloc_pd(hca: &Hca) -> Result<u32> {
    hca.commands
        .call(Opcode::ALLOC_PD, &AllocPdIn::default())
        .map(|output: AllocPdOut| output.pd())
}

/// Frees it.
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

/// Frees it.
pub fn dealloc_transport_domain(hca: &Hca, domain: u32) -> Result<()> {
    let mut input = DeallocTransportDomainIn::default();
    input.set_transport_domain(domain);
    hca.commands
        .call::<_, DeallocTransportDomainOut>(Opcode::DEALLOC_TRANSPORT_DOMAIN, &input)
        .map(drop)
}

/// Makes the key of all memory, by guest address. Returns the key as WQEs name it.
pub fn create_mkey(hca: &Hca, pd: u32) -> Result<u32> {
    let mut input = CreateMkeyIn::default();
    let context = input.memory_key_mkey_entry_mut();
    context.set_lr(true);
    context.set_lw(true);
    context.set_length64(true);
    context.set_pd(pd);
    context.set_qpn(ANY_QP);
    context.set_mkey_7_0(KEY_VARIANT);
    let output: CreateMkeyOut = hca.commands.call(Opcode::CREATE_MKEY, &input)?;
    Ok(output.mkey_index() << 8 | u32::from(KEY_VARIANT))
}

/// Destroys a key.
pub fn destroy_mkey(hca: &Hca, key: u32) -> Result<()> {
    let mut input = DestroyMkeyIn::default();
    input.set_mkey_index(key >> 8);
    hca.commands
        .call::<_, DestroyMkeyOut>(Opcode::DESTROY_MKEY, &input)
        .map(drop)
}

/// Makes a TIS.
pub fn create_tis(hca: &Hca, transport_domain: u32) -> Result<u32> {
    let mut input = CreateTisIn::default();
    input.ctx_mut().set_transport_domain(transport_domain);
    hca.commands
        .call(Opcode::CREATE_TIS, &input)
        .map(|output: CreateTisOut| output.tisn())
}

/// Destroys a TIS.
pub fn destroy_tis(hca: &Hca, tisn: u32) -> Result<()> {
    let mut input = DestroyTisIn::default();
    input.set_tisn(tisn);
    hca.commands
        .call::<_, DestroyTisOut>(Opcode::DESTROY_TIS, &input)
        .map(drop)
}

fn list(queues: &[u32]) -> Vec<u8> {
    queues.iter().flat_map(|queue| queue.to_be_bytes()).collect()
}

/// Makes a table of receive queues.
pub fn create_rqt(hca: &Hca, queues: &[u32]) -> Result<u32> {
    let mut input = CreateRqtIn::default();
    input.rqt_context_mut().set_rqt_max_size(queues.len() as u16);
    input.rqt_context_mut().set_rqt_actual_size(queues.len() as u16);
    let (output, _): (CreateRqtOut, _) = hca
        .commands
        .call_with(Opcode::CREATE_RQT, 0, &input, &list(queues), 0)?;
    Ok(output.rqtn())
}

/// Changes the queues of a table.
pub fn modify_rqt(hca: &Hca, rqtn: u32, queues: &[u32]) -> Result<()> {
    let mut input = ModifyRqtIn::default();
    input.set_rqtn(rqtn);
    input.bitmask_mut().set_rqn_list(true);
    input.ctx_mut().set_rqt_actual_size(queues.len() as u16);
    hca.commands
        .call_with::<_, ModifyRqtOut>(Opcode::MODIFY_RQT, 0, &input, &list(queues), 0)
        .map(drop)
}

/// Destroys a table of receive queues.
pub fn destroy_rqt(hca: &Hca, rqtn: u32) -> Result<()> {
    let mut input = DestroyRqtIn::default();
    input.set_rqtn(rqtn);
    hca.commands
        .call::<_, DestroyRqtOut>(Opcode::DESTROY_RQT, &input)
        .map(drop)
}

/// What a TIR hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashFields {
    /// Whether addresses are those of IPv6.
    pub ipv6: bool,
    /// Whether ports are those of UDP.
    pub udp: bool,
    /// `MLX5_HASH_FIELD_SEL_*`.
    pub selected: u32,
}

fn create_tir_of(hca: &Hca, input: &CreateTirIn) -> Result<u32> {
    hca.commands
        .call(Opcode::CREATE_TIR, input)
        .map(|output: CreateTirOut| output.tirn())
}

/// Makes a TIR that sends to one queue.
pub fn create_direct_tir(hca: &Hca, transport_domain: u32, rqn: u32) -> Result<u32> {
    let mut input = CreateTirIn::default();
    input.ctx_mut().set_transport_domain(transport_domain);
    input.ctx_mut().set_inline_rqn(rqn);
    create_tir_of(hca, &input)
}

/// Makes a TIR that sends to the queues of a table, by hash.
pub fn create_rss_tir(hca: &Hca, transport_domain: u32, rqtn: u32, key: &[u8; 40], fields: HashFields) -> Result<u32> {
    let mut input = CreateTirIn::default();
    let context = input.ctx_mut();
    context.set_transport_domain(transport_domain);
    context.set_disp_type(INDIRECT);
    context.set_indirect_table(rqtn);
    context.set_rx_hash_fn(TOEPLITZ);
    context.rx_hash_toeplitz_key_mut().copy_from_slice(key);
    let selector = context.rx_hash_field_selector_outer_mut();
    selector.set_l3_prot_type(fields.ipv6);
    selector.set_l4_prot_type(fields.udp);
    selector.set_selected_fields(fields.selected);
    create_tir_of(hca, &input)
}

/// Says which of the function's own frames a TIR takes.
pub fn set_self_loopback(hca: &Hca, tirn: u32, allow: u8) -> Result<()> {
    let mut input = ModifyTirIn::default();
    input.set_tirn(tirn);
    input.bitmask_mut().set_self_lb_en(true);
    input.ctx_mut().set_self_lb_block(allow);
    hca.commands
        .call::<_, ModifyTirOut>(Opcode::MODIFY_TIR, &input)
        .map(drop)
}

/// Destroys a TIR.
pub fn destroy_tir(hca: &Hca, tirn: u32) -> Result<()> {
    let mut input = DestroyTirIn::default();
    input.set_tirn(tirn);
    hca.commands
        .call::<_, DestroyTirOut>(Opcode::DESTROY_TIR, &input)
        .map(drop)
}
