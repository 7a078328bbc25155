//! The generic netlink controller: the number of a family by its name (include/uapi/linux/genetlink.h).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::NetlinkError;
use super::attributes::{Attributes, text_attribute};
use super::transport::Transport;

/// Message type of the controller, `GENL_ID_CTRL`.
const CONTROLLER: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// Version of the controller's messages.
const VERSION: u8 = 2;
/// `CTRL_ATTR_FAMILY_ID`.
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_NAME: u16 = 2;

/// The header behind the netlink header in every generic netlink message, `struct genlmsghdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct GenericHeader {
    /// Command of the family.
    pub(super) command: u8,
    /// Version of the family.
    pub(super) version: u8,
    /// Always zero.
    pub(super) reserved: u16,
}

const _: () = assert!(size_of::<GenericHeader>() == 4);

impl GenericHeader {
    /// The body of a request: this header, then attributes.
    pub(super) fn request(command: u8, version: u8, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = Self {
            command,
            version,
            reserved: 0,
        }
        .as_bytes()
        .to_vec();
        bytes.extend(attributes);
        bytes
    }

    /// The attributes of an answer.
    pub(super) fn attributes(body: &[u8]) -> Result<Attributes<'_>, NetlinkError> {
        let (_, attributes) = Self::ref_from_prefix(body).map_err(NetlinkError::malformed)?;
        Attributes::parse(attributes)
    }
}

/// Asks the controller for the message type of a family.
pub(super) fn family_number(transport: &mut Transport, name: &'static str) -> Result<u16, NetlinkError> {
    let request = GenericHeader::request(GET_FAMILY, VERSION, &text_attribute(FAMILY_NAME, name));
    let answers = match transport.query("a look-up of a family", CONTROLLER, request) {
        Err(NetlinkError::Refused { source, .. })
            if source.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) =>
        {
            return Err(NetlinkError::NoFamily(name));
        }
        other => other?,
    };
    let answer = answers.first().ok_or(NetlinkError::NoFamily(name))?;
    let number = GenericHeader::attributes(answer)?
        .number(FAMILY_ID)?
        .ok_or(NetlinkError::NoFamily(name))?;
    u16::try_from(number).map_err(NetlinkError::malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_knows_its_own_controller() {
        let mut transport = Transport::open(netlink_sys::protocols::NETLINK_GENERIC).unwrap();
        assert_eq!(family_number(&mut transport, "nlctrl").unwrap(), CONTROLLER);
        let missing = family_number(&mut transport, "NO_SUCH_FAMILY").unwrap_err();
        assert!(
            matches!(missing, NetlinkError::NoFamily("NO_SUCH_FAMILY")),
            "{missing:?}"
        );
    }
}
