//! States and services.

use serde::Serialize;

/// State of a queue pair (`enum mlx5_qp_state`, qp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the InfiniBand Architecture")]
pub enum QpState {
    Reset = 0,
    Init = 1,
    ReadyToReceive = 2,
    ReadyToSend = 3,
    SendQueueError = 4,
    SendQueueDrained = 5,
    Error = 6,
}

impl QpState {
    /// Whether requests of the peer are executed in this state.
    pub fn receives(self) -> bool {
        matches!(self, Self::ReadyToReceive | Self::ReadyToSend | Self::SendQueueDrained)
    }
}

/// Transport services (`MLX5_QP_ST_*`, qp.h).
pub mod service {
    #![expect(missing_docs, reason = "the names are those of the constants in qp.h")]
    pub const RC: u8 = 0x0;
    pub const UC: u8 = 0x1;
    pub const UD: u8 = 0x2;
    pub const XRC: u8 = 0x3;
    pub const GSI: u8 = 0x8;
    pub const RAW_ETHERNET: u8 = 0x9;
    pub const REG_UMR: u8 = 0xc;
}
