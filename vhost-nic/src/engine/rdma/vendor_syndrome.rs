//! Vendor syndromes: `vendor_err_synd` of an error completion (`struct mlx5_err_cqe`, device.h), which no public
//! document lists.
//!
//! The values were seen on hardware that the same driver drives, each in the report cited beside it; 0 where no report
//! is known.

use mlx5_prm::queue_entry::{CqeOpcode, Syndrome};

/// Returns the vendor syndrome of an error.
pub(super) fn vendor_syndrome(opcode: CqeOpcode, syndrome: Syndrome) -> u8 {
    match (opcode, syndrome) {
        // Flushed: github.com/linux-nvme/nvme-cli issue 3268 (receives), github.com/ruihong123/dLSM issue 7 (requests).
        (_, Syndrome::WrFlush) => 0xf9,
        // github.com/openucx/ucx issues 1151 and 3618.
        (CqeOpcode::RequestError, Syndrome::LocalQpOperation) => 0x68,
        // github.com/openucx/ucx issues 7774 and 9515.
        (CqeOpcode::RequestError, Syndrome::LocalProtection) => 0x51,
        // github.com/openucx/ucx issue 1770, github.com/charmplusplus/charm issue 2532.
        (CqeOpcode::RequestError, Syndrome::RemoteInvalidRequest) => 0x8a,
        // github.com/openucx/ucx issue 1834, github.com/spdk/spdk issue 964.
        (CqeOpcode::RequestError, Syndrome::RemoteAccess) => 0x88,
        // github.com/openucx/ucx issue 5472.
        (CqeOpcode::RequestError, Syndrome::RemoteOperation) => 0x89,
        // github.com/openucx/ucx issues 5199 and 6000.
        (CqeOpcode::RequestError, Syndrome::TransportRetryExceeded) => 0x81,
        _ => 0,
    }
}
