//! The generic netlink family of SMC (include/uapi/linux/smc.h, net/smc/smc_netlink.c).

use netlink_packet_core::{DecodeError, DefaultNla, Emitable, ParseableParametrized};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::NetlinkError;
use super::transport::Transport;

/// `SMC_GENL_FAMILY_VERSION`.
const VERSION: u8 = 1;

/// Commands of the family, `SMC_NETLINK_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    GetSystemInfo = 1,
    /// Link groups, each followed by its links.
    GetLinksSmcr = 3,
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

/// The top-level attribute of an answer, which nests all others, `SMC_GEN_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Nest {
    SystemInfo = 1,
    LinkGroupSmcr = 2,
    LinkSmcr = 3,
    LinkGroupSmcd = 4,
    DeviceSmcd = 5,
    DeviceSmcr = 6,
    Statistics = 7,
    FallbackStatistics = 8,
}

/// A message of the family with its attributes in wire format.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SmcMessage {
    command: u8,
    attributes: Vec<u8>,
}

impl GenlFamily for SmcMessage {
    /// Returns `SMC_GENL_FAMILY_NAME`.
    fn family_name() -> &'static str {
        "SMC_GEN_NETLINK"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for SmcMessage {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for SmcMessage {
    fn parse_with_param(attributes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self {
            command: header.cmd,
            attributes: attributes.to_vec(),
        })
    }
}

/// A connection to the family.
#[derive(Debug)]
pub struct SmcFamily {
    transport: Transport,
    id: u16,
}

impl SmcFamily {
    /// Resolves the family, which exists while the module smc is loaded.
    ///
    /// # Errors
    ///
    /// Fails when the module is not loaded or netlink does not work.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_named(SmcMessage::family_name())
    }

    /// Resolves another family of the module.
    pub(super) fn open_named(name: &'static str) -> Result<Self, NetlinkError> {
        let mut transport = Transport::open(NETLINK_GENERIC)?;
        let id = family_id(&mut transport, name)?;
        Ok(Self { transport, id })
    }

    /// Runs a command that lists something; returns the attributes of each answer in wire format.
    pub(super) fn list(&mut self, command: Command) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let message = self.message(command as u8, &[]);
        let answers = self.transport.dump(&format!("{command:?}"), message)?;
        Ok(answers.into_iter().map(|answer| answer.payload.attributes).collect())
    }

    /// Runs a command that changes something.
    pub(super) fn change(&mut self, command: Command, attributes: &[DefaultNla]) -> Result<(), NetlinkError> {
        self.execute(command as u8, &format!("{command:?}"), attributes)
    }

    /// Runs a command by its number; `name` is for messages.
    pub(super) fn execute(&mut self, number: u8, name: &str, attributes: &[DefaultNla]) -> Result<(), NetlinkError> {
        let message = self.message(number, attributes);
        self.transport.acknowledged(name, message).map(drop)
    }

    fn message(&self, command: u8, attributes: &[DefaultNla]) -> GenlMessage<SmcMessage> {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        let mut message = GenlMessage::from_payload(SmcMessage {
            command,
            attributes: bytes,
        });
        message.set_resolved_family_id(self.id);
        message
    }
}

/// Asks the generic netlink controller for the message type of a family.
fn family_id(transport: &mut Transport, name: &'static str) -> Result<u16, NetlinkError> {
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
    });
    let answers = match transport.acknowledged("a look-up of a family", request) {
        Err(NetlinkError::Refused { source, .. }) if source.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
            return Err(NetlinkError::NoFamily(name));
        }
        other => other?,
    };
    answers
        .iter()
        .flat_map(|answer| &answer.payload.nlas)
        .find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        })
        .ok_or(NetlinkError::NoFamily(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_knows_its_own_controller() {
        let mut transport = Transport::open(NETLINK_GENERIC).unwrap();
        // GENL_ID_CTRL (include/uapi/linux/genetlink.h).
        assert_eq!(family_id(&mut transport, "nlctrl").unwrap(), 0x10);
        let missing = family_id(&mut transport, "NO_SUCH_FAMILY").unwrap_err();
        assert!(
            matches!(missing, NetlinkError::NoFamily("NO_SUCH_FAMILY")),
            "{missing:?}"
        );
    }

    #[test]
    fn request_has_the_kernel_layout() {
        let family = SmcFamily {
            transport: Transport::open(NETLINK_GENERIC).unwrap(),
            id: 0x22,
        };
        let message = family.message(Command::AddUeid as u8, &[DefaultNla::new(1, vec![b'A', 0])]);
        assert_eq!(message.family_id(), 0x22);
        let mut bytes = vec![0xff; message.buffer_len()];
        message.emit(&mut bytes);
        assert_eq!(bytes, [10, 1, 0, 0, 6, 0, 1, 0, b'A', 0, 0, 0]);
    }
}
