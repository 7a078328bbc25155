//! Errors of an exchange with the kernel over netlink.

use std::error::Error;
use std::io;

/// An exchange with the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The netlink socket itself failed.
    #[error("netlink socket: cannot {operation}")]
    Socket {
        /// The failed operation, a verb.
        operation: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("the kernel refused {request}")]
    Refused {
        /// Name of the request.
        request: String,
        /// The errno of the answer.
        source: io::Error,
    },
    /// The kernel does not know the generic netlink family.
    #[error("generic netlink family {0} is missing: is the module smc loaded?")]
    NoFamily(&'static str),
    /// No socket diagnosis for SMC in the kernel.
    #[error("SMC sockets cannot be listed: is the module smc_diag loaded?")]
    NoSocketDiag(#[source] io::Error),
    /// An answer could not be decoded.
    #[error("malformed netlink answer")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
}

impl NetlinkError {
    /// Wraps the error about a message that breaks the format.
    pub(super) fn malformed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Malformed(source.into())
    }
}
