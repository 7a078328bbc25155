//! Syndromes: the numbers the firmware returns with the status of a refused command, one for each cause.
//!
//! Drivers only print them, and the vendor publishes no list. But engineers of the vendor, commits to the kernel and
//! reports of users have named numbers with their causes. Those are in [`TABLE`], and a refusal for the same cause has
//! the same number. They stay the same from one generation to the next, with few exceptions. All other numbers are
//! specific to this device.

use mlx5_prm::command::Status;
use mlx5_prm::opcode::Opcode;

/// Cause of a refusal, as far as its syndrome depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The object of the command does not exist.
    NoObject,
    /// The object of the command is in use.
    InUse,
    /// The table of the object's kind is full.
    Full,
    /// A cause whose syndrome the handler names.
    Known(u32),
    /// Any other.
    Other,
}

/// A syndrome of the vendor's firmware.
#[derive(Debug, Clone, Copy)]
pub struct Syndrome {
    /// Syndrome, 24 bits.
    pub number: u32,
    /// Status returned with it.
    pub status: Status,
    /// Commands that return it.
    pub commands: &'static [Opcode],
    /// Cause, in words.
    pub text: &'static str,
    /// Public source of the number.
    pub source: &'static str,
    /// Causes common to many commands for which those in `commands` return it; for any other cause, the handler names
    /// the syndrome.
    causes: &'static [Cause],
}

macro_rules! syndromes {
    ($(
        $name:ident = $number:literal, $status:ident, [$($command:ident),*] $([$($cause:ident),*])?:
        $text:literal, $source:literal;
    )*) => {
        $(#[doc = concat!($text, " (", $source, ").")] pub const $name: u32 = $number;)*

        /// All syndromes of the vendor's firmware that this device returns.
        pub const TABLE: &[Syndrome] = &[$(Syndrome {
            number: $number,
            status: Status::$status,
            commands: &[$(Opcode::$command),*],
            text: $text,
            source: $source,
            causes: &[$($(Cause::$cause),*)?],
        },)*];
    };
}

syndromes! {
    NO_CONTEXT = 0x25b161, BadResourceState, [
        DESTROY_MKEY, DESTROY_EQ, DESTROY_CQ, DESTROY_QP, DESTROY_XRC_SRQ, DESTROY_TIR, DESTROY_SQ, DESTROY_RQ,
        DESTROY_RMP, DESTROY_TIS, DESTROY_RQT
    ] [NoObject]:
        "the object does not exist",
        "\"destroy_ctx: context doesn't exist or doesn't match type\" in the list of firmware 14.12.1220; for \
         DESTROY_QP seen with 16.27.1016 (linux-pci, 21 January 2022)";
    CONTEXT_IN_USE = 0x4a6fc9, BadResourceState, [
        DESTROY_MKEY, DESTROY_QP, DESTROY_XRC_SRQ, DESTROY_TIR, DESTROY_SQ, DESTROY_RQ, DESTROY_RMP, DESTROY_TIS,
        DESTROY_RQT
    ] [InUse]:
        "other objects refer to the object", "\"destroy_ctx: context in use\" in the list of firmware 14.12.1220";
    INVALID_QP_NUMBER = 0x7ea02d, BadResourceState, [QP_2ERR, QP_2RST] [NoObject]:
        "the QP does not exist", "\"2error_qp/2reset: invalid qp number\" (Saeed Mahameed, linux-pci, 21 January 2022)";
    QUERY_NO_QP = 0x23528a, BadResourceState, [QUERY_QP] [NoObject]:
        "the QP does not exist", "firmware 28.48.1000, by experiment (design notes of mlx5_vfmig)";
    QUERY_NO_CQ = 0x1fb6ec, BadResourceState, [QUERY_CQ] [NoObject]:
        "the CQ does not exist", "firmware 28.48.1000, by experiment (design notes of mlx5_vfmig)";
    PD_IN_USE = 0xef0c8a, BadResourceState, [DEALLOC_PD] [NoObject, InUse]:
        "the PD does not exist or is in use",
        "kernel commits on leaked encryption keys, 2023; by experiment; firmware up to 16.27 had 0x31b635";
    CQ_IN_USE = 0x1870ad, BadResourceState, [DESTROY_CQ] [InUse]:
        "work queues complete to the CQ", "firmware 16.27.1016 and, by experiment, 28.48.1000";
    EQ_IN_USE = 0x30f433, BadResourceState, [DESTROY_EQ] [InUse]:
        "CQs report to the EQ", "fix of kernel commit c5447c70594b";
    FLOW_GROUP_IN_USE = 0x563e2f, BadResourceState, [DESTROY_FLOW_GROUP] [InUse]:
        "the flow group has entries", "netdev, 2019 and 2020";
    FLOW_TABLE_HAS_GROUPS = 0x66d6c3, BadParameter, [DESTROY_FLOW_TABLE]:
        "the flow table has groups", "netdev, 11 August 2020";
    FLOW_TABLE_IS_DESTINATION = 0x389e56, BadParameter, [DESTROY_FLOW_TABLE]:
        "entries of other flow tables forward to the flow table", "netdev, 11 August 2020";
    NO_MORE_UARS = 0x5a7939, LimitExceeded, [ALLOC_UAR] [Full]:
        "no UAR is left", "openucx/ucx issue 6049";
    NO_MORE_MKEYS = 0x59c8a4, LimitExceeded, [CREATE_MKEY] [Full]:
        "no memory key is left", "openucx/ucx issue 6264";
    NO_MORE_QPS = 0x65b500, BadResource, [CREATE_QP]:
        "no QP number is left", "linux-rdma, \"Unable to create max_qp QPs\", June 2022";
    QP_PAGES = 0x2f50ca, BadParameter, [CREATE_QP]:
        "the page list is too short for the QP's size", "firmware 14.32.1900";
    OPTIONAL_PARAMETER = 0x498c8b, BadParameter, [RTS2RTS_QP]:
        "opt_param_mask has the bit of the address path, which this transition does not allow", "firmware 14.32.1900";
    TRANSLATION_SIZE = 0x3bf6f, BadParameter, [CREATE_MKEY]:
        "the translation list is longer than the device supports", "netdev, on SHAMPO's keys";
    RQT_SIZE = 0x538faf, BadParameter, [CREATE_RQT, MODIFY_RQT]:
        "the device supports no RQT of this size", "netdev, Tariq Toukan on rqt_max_size";
    TIS_PORT_AFFINITY = 0x595b5d, BadParameter, [CREATE_TIS]:
        "the TIS is for a port of a LAG, and there is no LAG", "fix of kernel commit b25bd37c859f";
    UNKNOWN_CAPABILITIES = 0x5add95, BadParameter, [QUERY_HCA_CAP, SET_HCA_CAP]:
        "the capability group is unknown", "kernel commit 6496357aa5f7";
    MULTICAST_SOURCE_MAC = 0x63c66, BadParameter, [SET_ROCE_ADDRESS]:
        "the source MAC address is a group address", "linux-rdma, July 2023";
    ROCE_VERSION = 0x12822d, BadParameter, [SET_ROCE_ADDRESS]:
        "the function does not support this RoCE version", "linux-rdma, Parav Pandit";
    UNKNOWN_REGISTER = 0x6c4d48, BadParameter, [ACCESS_REG]:
        "the register is unknown", "netdev, January 2024, MPIR on a ConnectX-4 Lx";
    COUNTERS_PORT = 0x1e5585, BadParameter, [ACCESS_REG]:
        "PPCNT names a port other than the function's", "kernel commit 74b30b3ad5ce";
    EMPTY_CRITERIA = 0x7e1580, BadParameter, [CREATE_FLOW_GROUP]:
        "outer_headers valid bit is set, but headers are zero", "Mellanox/ovs-tests";
    DISABLED_CRITERIA = 0x17faa8, BadParameter, [CREATE_FLOW_GROUP]:
        "inner_headers valid bit isn't set, but headers are not reserved", "Mellanox/ovs-tests";
    NO_ACTION = 0x144b7a, BadParameter, [SET_FLOW_TABLE_ENTRY]:
        "the action is neither allow nor drop nor forward", "kernel commit ae2741e2b6ce";
    FLOW_TABLE_LEVEL = 0x6ae84c, BadParameter, [CREATE_FLOW_TABLE, MODIFY_FLOW_TABLE, SET_FLOW_TABLE_ENTRY]:
        "the destination is a flow table whose level is not higher", "kernel commit e300e47e1c05";
    SENT_TO_UPLINK = 0x6cdcfa, BadParameter, [SET_FLOW_TABLE_ENTRY]:
        "an entry of a NIC_TX table forwards to the uplink", "firmware 14.32.1900";
    SENT_TO_VPORT = 0x22a5af, BadParameter, [SET_FLOW_TABLE_ENTRY]:
        "an entry of a NIC_TX table forwards to a vport", "firmware 14.32.1900";
}

/// Returns the syndrome of a cause common to many commands, if the vendor's is known.
pub(super) fn of_common(opcode: Opcode, cause: Cause) -> Option<u32> {
    TABLE
        .iter()
        .find(|row| row.causes.contains(&cause) && row.commands.contains(&opcode))
        .map(|row| row.number)
}

/// Whether the table's row of `number` agrees with a refusal; numbers that are not in the table do.
pub(super) fn agrees(number: u32, opcode: Opcode, status: Status) -> bool {
    let row = TABLE.iter().find(|row| row.number == number);
    row.is_none_or(|row| row.status == status && row.commands.contains(&opcode))
}

/// Returns this device's own number for a reason (FNV-1a of the text, folded to 24 bits). Bit 31 distinguishes it from
/// the vendor's, which have 24 bits at most.
pub(super) const fn device_specific(reason: &str) -> u32 {
    let text = reason.as_bytes();
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < text.len() {
        hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    1 << 31 | (hash >> 24 ^ hash & 0xff_ffff)
}
