//! The mode the kernel chose for a socket of this process.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use clap::ValueEnum;
use serde::Serialize;

use crate::fallback_reason::FallbackReason;
use crate::netlink::NetlinkError;
use crate::netlink::sockets::{self, Mode, SmcSocket};

/// Expected mode of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedMode {
    /// SMC-D.
    Smcd,
    /// SMC-R.
    Smcr,
    /// TCP, requested or after a fallback.
    Tcp,
}

/// A connection has another mode than expected.
#[derive(Debug, thiserror::Error)]
#[error("the connection is {found:?}, not {expected:?}; fallback reason: {reason}; peer diagnosis: {diagnosis}")]
pub struct WrongMode {
    /// Expected mode.
    pub expected: ExpectedMode,
    /// Actual mode.
    pub found: Mode,
    /// Reason of the fallback.
    pub reason: FallbackReason,
    /// Diagnosis in the peer's decline message.
    pub diagnosis: FallbackReason,
}

impl ExpectedMode {
    /// Compares the actual mode with the expected one.
    ///
    /// # Errors
    ///
    /// Fails when they differ.
    pub fn check(self, found: Mode, reason: FallbackReason, diagnosis: FallbackReason) -> Result<(), WrongMode> {
        let same = matches!(
            (self, found),
            (Self::Smcd, Mode::Smcd) | (Self::Smcr, Mode::Smcr) | (Self::Tcp, Mode::Tcp)
        );
        if same {
            Ok(())
        } else {
            Err(WrongMode {
                expected: self,
                found,
                reason,
                diagnosis,
            })
        }
    }
}

/// Returns the inode of a socket, its key in socket diagnosis.
///
/// # Errors
///
/// Returns the error of the system call.
pub fn inode(stream: &TcpStream) -> std::io::Result<u64> {
    let file = File::from(stream.as_fd().try_clone_to_owned()?);
    Ok(file.metadata()?.ino())
}

/// Finds an SMC socket of this process in the kernel's list.
pub(super) fn find_own(stream: &TcpStream) -> Result<Option<SmcSocket>, NetlinkError> {
    let inode = inode(stream).map_err(|source| NetlinkError::Socket {
        operation: "find the inode of",
        source,
    })?;
    // A dump may miss a socket while others come and go.
    for _ in 0..5 {
        if let Some(socket) = sockets::list()?.into_iter().find(|socket| socket.inode == inode) {
            return Ok(Some(socket));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_compared() {
        let none = FallbackReason(0);
        ExpectedMode::Smcd.check(Mode::Smcd, none, none).unwrap();
        ExpectedMode::Tcp
            .check(Mode::Tcp, FallbackReason(0x0303_0008), none)
            .unwrap();
        let error = ExpectedMode::Smcd
            .check(Mode::Tcp, FallbackReason(0x0303_0008), none)
            .unwrap_err();
        assert!(error.to_string().contains("0x03030008 NOUEID"), "{error}");
        assert!(ExpectedMode::Smcd.check(Mode::Smcr, none, none).is_err());
    }
}
