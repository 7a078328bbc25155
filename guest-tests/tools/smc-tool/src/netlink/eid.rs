//! Enterprise IDs: two hosts need a common one to use SMC version 2.
//!
//! The rules are those of net/smc/smc_clc.c. Only s390x has a system EID; elsewhere it cannot be enabled, and hosts
//! need a common user-defined one.

use netlink_packet_core::DefaultNla;
use rustix::io::Errno;
use serde::Serialize;

use super::NetlinkError;
use super::attributes::Attributes;
use super::family::{Command, SmcFamily};

/// `SMC_MAX_EID_LEN`: shorter names are padded with blanks to this length.
const LENGTH: usize = 32;
/// `SMC_NLA_EID_TABLE_ENTRY`.
const TABLE_ENTRY: u16 = 1;
/// `SMC_NLA_SEID_ENTRY`.
const SEID_ENTRY: u16 = 1;
/// `SMC_NLA_SEID_ENABLED`.
const SEID_ENABLED: u16 = 2;

/// An invalid enterprise ID.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a UEID: 1 to 32 characters A-Z, 0-9, `.` and `-`, the first a letter or a digit")]
pub struct BadUeid(String);

/// A user-defined enterprise ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ueid(String);

impl std::str::FromStr for Ueid {
    type Err = BadUeid;

    fn from_str(text: &str) -> Result<Self, BadUeid> {
        let good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        let first = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if first && text.len() <= LENGTH && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadUeid(text.to_owned()))
        }
    }
}

impl Ueid {
    /// Returns the attribute of a request: the kernel wants exactly 32 characters and a zero byte.
    fn attribute(&self) -> DefaultNla {
        DefaultNla::new(TABLE_ENTRY, format!("{:<LENGTH$}\0", self.0).into_bytes())
    }
}

/// The system EID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seid {
    /// Name of the SEID; s390x only.
    pub name: Option<String>,
    /// Whether the SEID is offered to peers.
    pub enabled: bool,
}

/// Lists the user-defined EIDs of this host.
///
/// # Errors
///
/// Returns the error of the netlink exchange.
pub fn list_ueids(family: &mut SmcFamily) -> Result<Vec<String>, NetlinkError> {
    let mut names = Vec::new();
    for body in family.list(Command::DumpUeid)? {
        names.extend(Attributes::parse(&body)?.text(TABLE_ENTRY));
    }
    Ok(names)
}

/// Adds a user-defined EID. An existing one is not an error.
///
/// # Errors
///
/// Fails without CAP_NET_ADMIN, and when four exist already.
pub fn add_ueid(family: &mut SmcFamily, ueid: &Ueid) -> Result<(), NetlinkError> {
    match family.change(Command::AddUeid, &[ueid.attribute()]) {
        Err(NetlinkError::Refused { source, .. }) if is(&source, Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Removes a user-defined EID.
///
/// # Errors
///
/// Fails without CAP_NET_ADMIN, and when the EID does not exist.
pub fn remove_ueid(family: &mut SmcFamily, ueid: &Ueid) -> Result<(), NetlinkError> {
    match family.change(Command::RemoveUeid, &[ueid.attribute()]) {
        // The kernel's answer if the table is empty now and the system EID therefore enabled.
        Err(NetlinkError::Refused { source, .. }) if is(&source, Errno::AGAIN) => Ok(()),
        other => other,
    }
}

/// Removes all user-defined EIDs.
///
/// # Errors
///
/// Fails without CAP_NET_ADMIN.
pub fn flush_ueids(family: &mut SmcFamily) -> Result<(), NetlinkError> {
    family.change(Command::FlushUeid, &[])
}

/// Returns the system EID.
///
/// # Errors
///
/// Returns the error of the netlink exchange.
pub fn seid(family: &mut SmcFamily) -> Result<Seid, NetlinkError> {
    let bodies = family.list(Command::DumpSeid)?;
    let Some(body) = bodies.first() else {
        return Ok(Seid::default());
    };
    let attributes = Attributes::parse(body)?;
    Ok(Seid {
        name: attributes.text(SEID_ENTRY),
        enabled: attributes.flag(SEID_ENABLED)?,
    })
}

/// Enables or disables the system EID.
///
/// # Errors
///
/// Fails on all architectures but s390x.
pub fn set_seid(family: &mut SmcFamily, enabled: bool) -> Result<(), NetlinkError> {
    family.change(
        if enabled {
            Command::EnableSeid
        } else {
            Command::DisableSeid
        },
        &[],
    )
}

fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_kernel() {
        for good in ["A", "9", "LAB.TEST-1", &"X".repeat(32)] {
            assert!(good.parse::<Ueid>().is_ok(), "{good}");
        }
        for bad in ["", "a", "-A", ".A", "A B", "A_B", &"X".repeat(33)] {
            assert!(bad.parse::<Ueid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_filled_to_32_characters_and_a_zero() {
        let attribute = "LAB".parse::<Ueid>().unwrap().attribute();
        let mut bytes = vec![0xff; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[..4], [37, 0, 1, 0]);
        assert_eq!(bytes[4..10], *b"LAB   ");
        assert_eq!(bytes[35..37], [b' ', 0]);
    }
}
