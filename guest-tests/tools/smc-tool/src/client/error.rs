//! Errors of a workload.

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
    /// The connection ended prematurely.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The server sent a malformed message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The query of the kernel failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// This side received wrong data.
    #[error("received wrong data")]
    Received(#[source] Mismatch),
    /// The server received wrong data.
    #[error("the server received wrong data")]
    Sent(#[source] Mismatch),
    /// The digests of the two ends differ.
    #[error("digests differ although each byte was right: {0}")]
    Digest(&'static str),
    /// The server counted a wrong number of bytes.
    #[error("the server counted {found} bytes, not {expected}")]
    Count {
        /// Number expected.
        expected: u64,
        /// Number counted.
        found: u64,
    },
    /// A system call failed.
    #[error("cannot {operation}")]
    System {
        /// The failed operation, a verb.
        operation: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
    /// One of many connections failed.
    #[error("connection {index} of {count}")]
    OneOfMany {
        /// Index of the connection.
        index: usize,
        /// Number of connections.
        count: usize,
        /// Error of the connection.
        #[source]
        error: Box<WorkloadError>,
    },
    /// Invalid options, or a panic.
    #[error("{0}")]
    Options(&'static str),
}

impl WorkloadError {
    /// Returns whether data was wrong.
    pub fn is_wrong_data(&self) -> bool {
        match self {
            Self::Received(_) | Self::Sent(_) | Self::Digest(_) | Self::Count { .. } => true,
            Self::OneOfMany { error, .. } => error.is_wrong_data(),
            _ => false,
        }
    }

    /// Returns whether a connection has the wrong mode.
    pub fn is_wrong_mode(&self) -> bool {
        match self {
            Self::Connect(ConnectError::WrongMode(_) | ConnectError::NotListed) => true,
            Self::OneOfMany { error, .. } => error.is_wrong_mode(),
            _ => false,
        }
    }

    /// Returns a constructor of errors of a failed system call.
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
