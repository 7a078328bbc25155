//! Failures of completion queues.

use serde::Serialize;
use thiserror::Error;

use crate::net::CqePlace;

/// Reason why a CQ takes no more completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CqFailure {
    /// There was no room for a completion.
    Overrun,
    /// The doorbell record cannot be read, or the buffer not be written.
    Access,
}

impl CqFailure {
    /// Syndrome of the CQ error event (`struct mlx5_eqe_cq_err`, device.h).
    pub(super) fn syndrome(self) -> u8 {
        match self {
            Self::Overrun => 1,
            Self::Access => 2,
        }
    }

    /// Status of the context (`cqc.status`, mlx5_ifc.h): overflow, or write failure, the only one of an access.
    pub(super) fn status(self) -> u8 {
        match self {
            Self::Overrun => 0x9,
            Self::Access => 0xa,
        }
    }
}

/// The CQ is in error. The queue whose completion it does not take goes to the error state, with a local work queue
/// catastrophic error (IBTA 11.6.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the completion queue is in error")]
pub struct CqInError;

/// A completion that the CQ took.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// Place of the completion, or `None` if the door withholds it.
    pub place: Option<CqePlace>,
    /// Whether the door made it an error, which moves its queue to the error state.
    pub failed: bool,
    /// Whether it waits for [`Cq::end_burst`](super::Cq::end_burst).
    pub held: bool,
}

/// Result of a post to a CQ: the place of the completion, or `None` if the door withholds it.
pub type Posted = Result<Option<CqePlace>, CqInError>;
