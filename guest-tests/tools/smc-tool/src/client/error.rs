//! How a workload fails.

use std::io;

use crate::data::Mismatch;
use crate::netlink::NetlinkError;
use crate::stream::{ConnectError, TransferError, WrongMode};
use crate::wire::WireError;

/// A workload failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended too early.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The server answered nonsense.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The kernel cannot be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// This side received wrong data.
    #[error("received wrong data: {0}")]
    Received(Mismatch),
    /// The server received wrong data.
    #[error("the server received wrong data: {0}")]
    Sent(Mismatch),
    /// The digests of the two ends differ.
    #[error("digests differ although each byte was right: {0}")]
    Digest(&'static str),
    /// Not as many bytes as there should be.
    #[error("the server counted {found} bytes, not {expected}")]
    Count {
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A system call failed.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Some of many connections failed.
    #[error("connection {index} of {count}: {error}")]
    OneOfMany {
        /// Which.
        index: usize,
        /// Of how many.
        count: usize,
        /// How it failed.
        #[source]
        error: Box<WorkloadError>,
    },
    /// The workload cannot be done as asked.
    #[error("{0}")]
    Options(&'static str),
}

impl WorkloadError {
    /// Whether data was wrong.
    pub fn is_wrong_data(&self) -> bool {
        match self {
            Self::Received(_) | Self::Sent(_) | Self::Digest(_) | Self::Count { .. } => true,
            Self::OneOfMany { error, .. } => error.is_wrong_data(),
            _ => false,
        }
    }

    /// Whether a connection has the wrong mode.
    pub fn is_wrong_mode(&self) -> bool {
        match self {
            Self::Connect(ConnectError::WrongMode(_) | ConnectError::NotListed) => true,
            Self::OneOfMany { error, .. } => error.is_wrong_mode(),
            _ => false,
        }
    }

    /// Makes an error of a failed system call.
    pub(super) fn system<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::System {
            operation,
            source: error.into(),
        }
    }
}

impl From<WrongMode> for WorkloadError {
    fn from(error: WrongMode) -> Self {
        ConnectError::from(error).into()
    }
}
