//! TIS, TIR and RQT: the objects between work queues and the wire.

use mlx5_prm::opcode::Opcode;
use mlx5_prm::tis_tir_rqt::*;

use crate::command::Result;
use crate::hca::Hca;

/// Toeplitz (`MLX5_RX_HASH_FN_TOEPLITZ`).
const TOEPLITZ: u8 = 2;
/// `MLX5_TIRC_DISP_TYPE_INDIRECT`.
const INDIRECT: u8 = 1;
/// `self_lb_block` of a TIR that receives the function's own frames: `MLX5_TIRC_SELF_LB_BLOCK_BLOCK_UNICAST` and
/// `_MULTICAST`. The driver sets them to allow loopback (`mlx5e_modify_tirs_lb`), the contrary of their names.
pub const ALLOW_LOOPBACK: u8 = 3;

/// Creates a TIS.
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

/// Creates an RQT.
pub fn create_rqt(hca: &Hca, queues: &[u32]) -> Result<u32> {
    let mut input = CreateRqtIn::default();
    input.rqt_context_mut().set_rqt_max_size(queues.len() as u16);
    input.rqt_context_mut().set_rqt_actual_size(queues.len() as u16);
    let (output, _): (CreateRqtOut, _) = hca
        .commands
        .call_with(Opcode::CREATE_RQT, 0, &input, &list(queues), 0)?;
    Ok(output.rqtn())
}

/// Replaces the receive queues of an RQT.
pub fn modify_rqt(hca: &Hca, rqtn: u32, queues: &[u32]) -> Result<()> {
    let mut input = ModifyRqtIn::default();
    input.set_rqtn(rqtn);
    input.bitmask_mut().set_rqn_list(true);
    input.ctx_mut().set_rqt_actual_size(queues.len() as u16);
    hca.commands
        .call_with::<_, ModifyRqtOut>(Opcode::MODIFY_RQT, 0, &input, &list(queues), 0)
        .map(drop)
}

/// Destroys an RQT.
pub fn destroy_rqt(hca: &Hca, rqtn: u32) -> Result<()> {
    let mut input = DestroyRqtIn::default();
    input.set_rqtn(rqtn);
    hca.commands
        .call::<_, DestroyRqtOut>(Opcode::DESTROY_RQT, &input)
        .map(drop)
}

/// Fields of a packet that a TIR hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashFields {
    /// Whether the L3 protocol is IPv6 instead of IPv4.
    pub ipv6: bool,
    /// Whether the L4 protocol is UDP instead of TCP.
    pub udp: bool,
    /// `MLX5_HASH_FIELD_SEL_*`.
    pub selected: u32,
}

fn create_tir_of(hca: &Hca, input: &CreateTirIn) -> Result<u32> {
    hca.commands
        .call(Opcode::CREATE_TIR, input)
        .map(|output: CreateTirOut| output.tirn())
}

/// Creates a TIR that delivers to one receive queue.
pub fn create_direct_tir(hca: &Hca, transport_domain: u32, rqn: u32) -> Result<u32> {
    let mut input = CreateTirIn::default();
    input.ctx_mut().set_transport_domain(transport_domain);
    input.ctx_mut().set_inline_rqn(rqn);
    create_tir_of(hca, &input)
}

/// Creates a TIR that spreads over the queues of an RQT by Toeplitz hash.
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

/// Sets which of the function's own frames a TIR receives (`self_lb_block`).
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
