//! SMC capabilities of this host.

use serde::Serialize;

use super::NetlinkError;
use super::attributes::Attributes;
use super::family::{Command, Nest, SmcFamily};

/// `SMC_NLA_SYS_VER`.
const VERSION: u16 = 1;
/// `SMC_NLA_SYS_REL`.
const RELEASE: u16 = 2;
/// `SMC_NLA_SYS_IS_ISM_V2`.
const SMCD_V2: u16 = 3;
/// `SMC_NLA_SYS_LOCAL_HOST`.
const HOST: u16 = 4;
/// `SMC_NLA_SYS_SEID`.
const SEID: u16 = 5;
/// `SMC_NLA_SYS_IS_SMCR_V2`.
const SMCR_V2: u16 = 6;

/// SMC capabilities and identity of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SystemInfo {
    /// Highest protocol version.
    pub version: u64,
    /// Highest release of that version.
    pub release: u64,
    /// Whether SMC-D version 2 is possible: a device supports it, loopback included.
    pub smcd_v2_capable: bool,
    /// Whether SMC-R version 2 is possible.
    pub smcr_v2_capable: bool,
    /// Host name sent to peers.
    pub host: Option<String>,
    /// System EID; s390x only.
    pub seid: Option<String>,
}

impl SystemInfo {
    /// Queries the kernel.
    ///
    /// # Errors
    ///
    /// Returns the error of the netlink exchange.
    pub fn query(family: &mut SmcFamily) -> Result<Self, NetlinkError> {
        let bodies = family.list(Command::GetSystemInfo)?;
        let body = bodies
            .first()
            .ok_or_else(|| NetlinkError::malformed("no system information"))?;
        Self::decode(body)
    }

    fn decode(body: &[u8]) -> Result<Self, NetlinkError> {
        let attributes = Attributes::parse(body)?.nest(Nest::SystemInfo as u16)?;
        Ok(Self {
            version: attributes.counter(VERSION)?,
            release: attributes.counter(RELEASE)?,
            smcd_v2_capable: attributes.flag(SMCD_V2)?,
            smcr_v2_capable: attributes.flag(SMCR_V2)?,
            host: attributes.text(HOST),
            seid: attributes.text(SEID),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::emit::{attribute, text_attribute};
    use super::*;

    #[test]
    fn answer_is_decoded() {
        let mut nest = attribute(VERSION, &[2]);
        nest.extend(attribute(RELEASE, &[1]));
        nest.extend(attribute(SMCD_V2, &[1]));
        nest.extend(attribute(SMCR_V2, &[1]));
        nest.extend(text_attribute(HOST, "guest-a                         "));
        nest.extend(text_attribute(SEID, ""));
        let body = attribute(Nest::SystemInfo as u16, &nest);
        let info = SystemInfo::decode(&body).unwrap();
        assert_eq!((info.version, info.release), (2, 1));
        assert!(info.smcd_v2_capable);
        assert_eq!(info.host.as_deref(), Some("guest-a"));
        assert_eq!(info.seid, None);
    }
}
