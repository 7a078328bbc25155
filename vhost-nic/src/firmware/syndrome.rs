//! Syndromes: the numbers that hardware gives with the status of a refused command, one for each cause.
//!
//! Drivers only print them, and the vendor publishes no list. But engineers of the vendor, commits to the kernel and reports of users have told
//! numbers with their causes. Those are here, and a refusal for the same cause has the same number. They do not change from one generation to
//! the next, with few exceptions. All other numbers are this device's own.

use mlx5_prm::opcode::Opcode;

use super::command::Cause;

/// "destroy_ctx: context doesn't exist or doesn't match type", in the list of firmware 14.12.1220; for DESTROY_QP seen with 16.27.1016
/// (linux-pci, 21 January 2022).
pub const NO_CONTEXT: u32 = 0x25b161;
/// "destroy_ctx: context in use", in the same list.
pub const CONTEXT_IN_USE: u32 = 0x4a6fc9;
/// "2error_qp/2reset: invalid qp number" (Saeed Mahameed, linux-pci, 21 January 2022).
pub const INVALID_QP_NUMBER: u32 = 0x7ea02d;
/// QUERY_QP of none: firmware 28.48.1000, by experiment (design notes of mlx5_vfmig).
pub const QUERY_NO_QP: u32 = 0x23528a;
/// QUERY_CQ of none: as before.
pub const QUERY_NO_CQ: u32 = 0x1fb6ec;
/// DEALLOC_PD of none or of one in use (kernel commits on leaked encryption keys, 2023; by experiment). Firmware up to 16.27 had 0x31b635.
pub const PD_IN_USE: u32 = 0xef0c8a;
/// DESTROY_CQ while a queue completes there (firmware 16.27.1016 and, by experiment, 28.48.1000).
pub const CQ_IN_USE: u32 = 0x1870ad;
/// DESTROY_EQ while completion queues report there (fix of kernel commit c5447c70594b).
pub const EQ_IN_USE: u32 = 0x30f433;
/// DESTROY_FLOW_GROUP with entries (netdev, 2019 and 2020).
pub const FLOW_GROUP_IN_USE: u32 = 0x563e2f;
/// DESTROY_FLOW_TABLE with a group (netdev, 11 August 2020).
pub const FLOW_TABLE_HAS_GROUPS: u32 = 0x66d6c3;
/// DESTROY_FLOW_TABLE that entries send to (as before).
pub const FLOW_TABLE_IS_DESTINATION: u32 = 0x389e56;
/// ALLOC_UAR without one left (openucx/ucx issue 6049).
pub const NO_MORE_UARS: u32 = 0x5a7939;
/// CREATE_MKEY without one left (openucx/ucx issue 6264).
pub const NO_MORE_MKEYS: u32 = 0x59c8a4;
/// CREATE_QP without one left (linux-rdma, "Unable to create max_qp QPs", June 2022).
pub const NO_MORE_QPS: u32 = 0x65b500;
/// CREATE_QP with too few pages for its size (firmware 14.32.1900).
pub const QP_PAGES: u32 = 0x2f50ca;
/// RTS2RTS_QP with a bit in `opt_param_mask` that this change does not allow, that of the address path.
pub const OPTIONAL_PARAMETER: u32 = 0x498c8b;
/// CREATE_MKEY with a list of translations that is longer than the device can have (netdev, on SHAMPO's keys).
pub const TRANSLATION_SIZE: u32 = 0x3bf6f;
/// CREATE_RQT with a size that is not possible (netdev, Tariq Toukan on `rqt_max_size`).
pub const RQT_SIZE: u32 = 0x538faf;
/// CREATE_TIS for a port of a LAG that there is not (fix of kernel commit b25bd37c859f).
pub const TIS_PORT_AFFINITY: u32 = 0x595b5d;
/// QUERY_HCA_CAP of a group that the firmware does not know (kernel commit 6496357aa5f7).
pub const UNKNOWN_CAPABILITIES: u32 = 0x5add95;
/// SET_ROCE_ADDRESS with a group address as source MAC (linux-rdma, July 2023).
pub const MULTICAST_SOURCE_MAC: u32 = 0x63c66;
/// SET_ROCE_ADDRESS for a version that the function does not have (linux-rdma, Parav Pandit).
pub const ROCE_VERSION: u32 = 0x12822d;
/// ACCESS_REG of a register that the device does not know (netdev, January 2024, MPIR on a ConnectX-4 Lx).
pub const UNKNOWN_REGISTER: u32 = 0x6c4d48;
/// ACCESS_REG: PPCNT of another port than the function's (kernel commit 74b30b3ad5ce).
pub const COUNTERS_PORT: u32 = 0x1e5585;
/// CREATE_FLOW_GROUP: "outer_headers valid bit is set, but headers are zero" (Mellanox/ovs-tests).
pub const EMPTY_CRITERIA: u32 = 0x7e1580;
/// CREATE_FLOW_GROUP: "inner_headers valid bit isn't set, but headers are not reserved" (as before).
pub const DISABLED_CRITERIA: u32 = 0x17faa8;
/// SET_FLOW_TABLE_ENTRY whose action is neither allow nor drop nor forward (kernel commit ae2741e2b6ce).
pub const NO_ACTION: u32 = 0x144b7a;
/// SET_FLOW_TABLE_ENTRY to a table whose level is not higher (kernel commit e300e47e1c05).
pub const FLOW_TABLE_LEVEL: u32 = 0x6ae84c;
/// SET_FLOW_TABLE_ENTRY in a table for sent frames, to the uplink (firmware 14.32.1900).
pub const SENT_TO_UPLINK: u32 = 0x6cdcfa;
/// SET_FLOW_TABLE_ENTRY in a table for sent frames, to a vport (as before).
pub const SENT_TO_VPORT: u32 = 0x22a5af;

/// Syndromes of refusals that many commands have in common.
const COMMON: &[(Opcode, Cause, u32)] = &[
    (Opcode::QP_2RST, Cause::NoObject, INVALID_QP_NUMBER),
    (Opcode::QP_2ERR, Cause::NoObject, INVALID_QP_NUMBER),
    (Opcode::QUERY_QP, Cause::NoObject, QUERY_NO_QP),
    (Opcode::QUERY_CQ, Cause::NoObject, QUERY_NO_CQ),
    (Opcode::DEALLOC_PD, Cause::NoObject, PD_IN_USE),
    (Opcode::DEALLOC_PD, Cause::InUse, PD_IN_USE),
    (Opcode::DESTROY_CQ, Cause::InUse, CQ_IN_USE),
    (Opcode::DESTROY_EQ, Cause::InUse, EQ_IN_USE),
    (Opcode::DESTROY_FLOW_GROUP, Cause::InUse, FLOW_GROUP_IN_USE),
    (Opcode::ALLOC_UAR, Cause::Full, NO_MORE_UARS),
    (Opcode::CREATE_MKEY, Cause::Full, NO_MORE_MKEYS),
];

/// Commands that take a context away.
const DESTROY: &[Opcode] = &[
    Opcode::DESTROY_MKEY,
    Opcode::DESTROY_EQ,
    Opcode::DESTROY_CQ,
    Opcode::DESTROY_QP,
    Opcode::DESTROY_XRC_SRQ,
    Opcode::DESTROY_TIR,
    Opcode::DESTROY_SQ,
    Opcode::DESTROY_RQ,
    Opcode::DESTROY_RMP,
    Opcode::DESTROY_TIS,
    Opcode::DESTROY_RQT,
];

/// The syndrome of a refusal that many commands have in common, if hardware's is known.
pub(super) fn of_common(opcode: Opcode, cause: Cause) -> Option<u32> {
    let common = COMMON.iter().find(|(of, why, _)| (*of, *why) == (opcode, cause));
    match (common, cause) {
        (Some((.., syndrome)), _) => Some(*syndrome),
        (None, Cause::NoObject) if DESTROY.contains(&opcode) => Some(NO_CONTEXT),
        (None, Cause::InUse) if DESTROY.contains(&opcode) => Some(CONTEXT_IN_USE),
        _ => None,
    }
}

/// A number of this device's own for a reason (FNV-1a of the text, folded to 24 bits). The highest bit tells it from hardware's, which have 24
/// bits at most.
pub(super) const fn own(reason: &str) -> u32 {
    let text = reason.as_bytes();
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < text.len() {
        hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    1 << 31 | (hash >> 24 ^ hash & 0xff_ffff)
}
