//! What can go wrong when the kernel is asked over netlink.

use std::io;

/// An exchange with the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The netlink socket itself failed.
    #[error("netlink socket: cannot {operation}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("the kernel refused {request}")]
    Refused {
        /// The request.
        request: String,
        /// The errno of the answer.
        source: io::Error,
    },
    /// The kernel does not know the generic netlink family.
    #[error("generic netlink family {0} is missing: is the module smc loaded?")]
    NoFamily(&'static str),
    /// The kernel has nothing to list SMC sockets with.
    #[error("SMC sockets cannot be listed: is the module smc_diag loaded?")]
    NoSocketDiag(#[source] io::Error),
    /// An answer could not be decoded.
    #[error("malformed netlink answer: {0}")]
    Malformed(String),
}

impl NetlinkError {
    /// An error about a message that breaks the format.
    pub(super) fn malformed(text: impl ToString) -> Self {
        Self::Malformed(text.to_string())
    }
}
