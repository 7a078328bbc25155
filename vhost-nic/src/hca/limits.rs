//! Number of objects of each kind: the sizes of the tables, which the capabilities report.
//!
//! Each is the log2 of a number, named as in `cmd_hca_cap` (mlx5_ifc.h).

/// Event queues.
pub const LOG_MAX_EQ: u64 = 7;
/// Completion queues.
pub const LOG_MAX_CQ: u64 = 16;
/// Memory keys; see [`Limits`].
pub const LOG_MAX_MKEY: u64 = 20;
/// Protection domains.
pub const LOG_MAX_PD: u64 = 16;
/// Transport domains.
pub const LOG_MAX_TRANSPORT_DOMAIN: u64 = 16;
/// XRC domains.
pub const LOG_MAX_XRCD: u64 = 16;
/// Queue pairs, receive queues and send queues together.
pub const LOG_MAX_QP: u64 = 16;
/// Shared receive queues: RMPs have the lower numbers, XRC SRQs the others.
pub const LOG_MAX_SRQ: u64 = 16;
/// Receive memory pools.
pub const LOG_MAX_RMP: u64 = 14;
/// Transport interfaces, send.
pub const LOG_MAX_TIS: u64 = 14;
/// Transport interfaces, receive.
pub const LOG_MAX_TIR: u64 = 14;
/// Receive queue tables.
pub const LOG_MAX_RQT: u64 = 12;

/// Limits that the configuration of a NIC can lower. Tables and capabilities both follow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Log2 of the number of memory keys, at most [`LOG_MAX_MKEY`].
    pub log_max_mkey: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_max_mkey: LOG_MAX_MKEY as u8,
        }
    }
}
