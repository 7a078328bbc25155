//! The generic netlink family of SMC (include/uapi/linux/smc.h, net/smc/smc_netlink.c).

use netlink_sys::protocols::NETLINK_GENERIC;

use super::NetlinkError;
use super::controller::{GenericHeader, family_number};
use super::transport::Transport;

/// `SMC_GENL_FAMILY_NAME`.
const NAME: &str = "SMC_GEN_NETLINK";
/// `SMC_GENL_FAMILY_VERSION`.
const VERSION: u8 = 1;

/// Commands of the family, `SMC_NETLINK_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    GetSystemInfo = 1,
    GetLinkGroupsSmcr = 2,
    GetLinkGroupsSmcd = 4,
    GetDevicesSmcd = 5,
    GetDevicesSmcr = 6,
    GetStatistics = 7,
    GetFallbackStatistics = 8,
    DumpUeid = 9,
    AddUeid = 10,
    RemoveUeid = 11,
    FlushUeid = 12,
    DumpSeid = 13,
    EnableSeid = 14,
    DisableSeid = 15,
}

/// The attribute that holds everything an answer says, `SMC_GEN_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Nest {
    SystemInfo = 1,
    LinkGroupSmcr = 2,
    LinkGroupSmcd = 4,
    DeviceSmcd = 5,
    DeviceSmcr = 6,
    Statistics = 7,
    FallbackStatistics = 8,
}

/// A connection to the family.
#[derive(Debug)]
pub struct SmcFamily {
    transport: Transport,
    number: u16,
}

impl SmcFamily {
    /// Finds the family. It exists while the module smc is loaded.
    ///
    /// # Errors
    ///
    /// Fails when the module is not loaded or netlink does not work.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut transport = Transport::open(NETLINK_GENERIC)?;
        let number = family_number(&mut transport, NAME)?;
        Ok(Self { transport, number })
    }

    /// The bodies of all answers to a command that lists something, headers included.
    pub(super) fn list(&mut self, command: Command) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let request = GenericHeader::request(command as u8, VERSION, &[]);
        self.transport.dump(&format!("{command:?}"), self.number, request)
    }

    /// Sends a command that changes something.
    pub(super) fn change(&mut self, command: Command, attributes: &[u8]) -> Result<(), NetlinkError> {
        let request = GenericHeader::request(command as u8, VERSION, attributes);
        self.transport.change(&format!("{command:?}"), self.number, request)
    }
}
