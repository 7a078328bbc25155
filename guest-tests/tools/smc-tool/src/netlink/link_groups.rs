//! Link groups: the state shared by all connections to one peer over one device.

use serde::Serialize;

use super::NetlinkError;
use super::attributes::Attributes;
use super::family::{Command, Nest, SmcFamily};
use super::gid::Gid;

/// Attributes of an SMC-D link group, `SMC_NLA_LGR_D_*`.
mod smcd_attribute {
    pub(super) const ID: u16 = 1;
    pub(super) const GID: u16 = 2;
    pub(super) const PEER_GID: u16 = 3;
    pub(super) const VLAN: u16 = 4;
    pub(super) const CONNECTIONS: u16 = 5;
    pub(super) const PNETID: u16 = 6;
    pub(super) const CHID: u16 = 7;
    pub(super) const V2: u16 = 9;
    pub(super) const GID_EXT: u16 = 10;
    pub(super) const PEER_GID_EXT: u16 = 11;
    pub(super) const SEND_BYTES: u16 = 12;
    pub(super) const DMB_BYTES: u16 = 13;
}

/// Attributes of an SMC-R link group, `SMC_NLA_LGR_R_*`.
mod smcr_attribute {
    pub(super) const ID: u16 = 1;
    pub(super) const ROLE: u16 = 2;
    pub(super) const TYPE: u16 = 3;
    pub(super) const CONNECTIONS: u16 = 6;
    pub(super) const V2: u16 = 7;
}

/// Attributes of an SMC-R link, `SMC_NLA_LINK_*`.
mod link_attribute {
    pub(super) const ID: u16 = 1;
    pub(super) const DEVICE: u16 = 2;
    pub(super) const CONNECTIONS: u16 = 6;
}

/// Attributes of version 2 of both kinds, `SMC_NLA_LGR_V2_*`.
mod v2_attribute {
    pub(super) const VERSION: u16 = 0;
    pub(super) const RELEASE: u16 = 1;
    pub(super) const EID: u16 = 3;
    pub(super) const PEER_HOST: u16 = 4;
}

/// Result of a version 2 handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Protocol version.
    pub version: u64,
    /// Release of the peer.
    pub peer_release: u64,
    /// Common EID.
    pub eid: Option<String>,
    /// Host name of the peer.
    pub peer_host: Option<String>,
}

impl Agreement {
    /// Decodes this nest; `None` for a link group of version 1, which lacks it.
    fn decode(attributes: &Attributes<'_>, nest: u16) -> Result<Option<Self>, NetlinkError> {
        if attributes.bytes(nest).is_none() {
            return Ok(None);
        }
        let nest = attributes.nest(nest)?;
        Ok(Some(Self {
            version: nest.counter(v2_attribute::VERSION)?,
            peer_release: nest.counter(v2_attribute::RELEASE)?,
            eid: nest.text(v2_attribute::EID),
            peer_host: nest.text(v2_attribute::PEER_HOST),
        }))
    }
}

/// An SMC-D link group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SmcdLinkGroup {
    /// ID of the group in this kernel.
    pub id: u64,
    /// Local GID.
    pub my_gid: Gid,
    /// GID of the peer.
    pub peer_gid: Gid,
    /// Fabric ID of the device.
    pub chid: u64,
    /// VLAN ID.
    pub vlan: u64,
    /// Number of connections.
    pub connections: u64,
    /// PNETID of the device.
    pub pnetid: Option<String>,
    /// Total size of the send buffers in bytes.
    pub send_buffer_bytes: Option<u64>,
    /// Total size of the DMBs in bytes.
    pub dmb_bytes: Option<u64>,
    /// Result of the version 2 handshake; `None` for version 1.
    pub v2: Option<Agreement>,
}

impl SmcdLinkGroup {
    fn decode(attributes: &Attributes<'_>) -> Result<Self, NetlinkError> {
        use smcd_attribute::*;
        Ok(Self {
            id: attributes.counter(ID)?,
            my_gid: Gid::from_halves(attributes.counter(GID)?, attributes.counter(GID_EXT)?),
            peer_gid: Gid::from_halves(attributes.counter(PEER_GID)?, attributes.counter(PEER_GID_EXT)?),
            chid: attributes.counter(CHID)?,
            vlan: attributes.counter(VLAN)?,
            connections: attributes.counter(CONNECTIONS)?,
            pnetid: attributes.text(PNETID),
            send_buffer_bytes: attributes.number(SEND_BYTES)?,
            dmb_bytes: attributes.number(DMB_BYTES)?,
            v2: Agreement::decode(attributes, V2)?,
        })
    }
}

/// An SMC-R link group; a subset of what the kernel reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SmcrLinkGroup {
    /// ID of the group in this kernel.
    pub id: u64,
    /// Role: 0 client, 1 server.
    pub role: u64,
    /// 1 single, 2 symmetric (a link over each of two NICs at both ends), 3 and 4 asymmetric (`enum smc_lgr_type`).
    #[serde(rename = "type")]
    pub kind: u64,
    /// Number of connections.
    pub connections: u64,
    /// Result of the version 2 handshake; `None` for version 1.
    pub v2: Option<Agreement>,
    /// Links, also those that are about to be removed.
    pub links: Vec<SmcrLink>,
}

/// A link of an SMC-R link group: a connected queue pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SmcrLink {
    /// ID of the link in its group.
    pub id: u64,
    /// Name of the RDMA device.
    pub device: Option<String>,
    /// Number of connections that use it.
    pub connections: u64,
}

impl SmcrLink {
    fn decode(attributes: &Attributes<'_>) -> Result<Self, NetlinkError> {
        use link_attribute::*;
        Ok(Self {
            id: attributes.counter(ID)?,
            device: attributes.text(DEVICE),
            connections: attributes.counter(CONNECTIONS)?,
        })
    }
}

impl SmcrLinkGroup {
    fn decode(attributes: &Attributes<'_>) -> Result<Self, NetlinkError> {
        use smcr_attribute::*;
        Ok(Self {
            id: attributes.counter(ID)?,
            role: attributes.counter(ROLE)?,
            kind: attributes.counter(TYPE)?,
            connections: attributes.counter(CONNECTIONS)?,
            v2: Agreement::decode(attributes, V2)?,
            links: Vec::new(),
        })
    }
}

/// Lists the SMC-D link groups.
///
/// # Errors
///
/// Returns the error of the netlink exchange.
pub fn smcd(family: &mut SmcFamily) -> Result<Vec<SmcdLinkGroup>, NetlinkError> {
    let bodies = family.list(Command::GetLinkGroupsSmcd)?;
    let decode = |body: &Vec<u8>| SmcdLinkGroup::decode(&Attributes::parse(body)?.nest(Nest::LinkGroupSmcd as u16)?);
    bodies.iter().map(decode).collect()
}

/// Lists the SMC-R link groups.
///
/// # Errors
///
/// Returns the error of the netlink exchange.
pub fn smcr(family: &mut SmcFamily) -> Result<Vec<SmcrLinkGroup>, NetlinkError> {
    let mut groups: Vec<SmcrLinkGroup> = Vec::new();
    for body in family.list(Command::GetLinksSmcr)? {
        let attributes = Attributes::parse(&body)?;
        if attributes.bytes(Nest::LinkGroupSmcr as u16).is_some() {
            groups.push(SmcrLinkGroup::decode(&attributes.nest(Nest::LinkGroupSmcr as u16)?)?);
        } else if let Some(group) = groups.last_mut() {
            let link = attributes.nest(Nest::LinkSmcr as u16)?;
            group.links.push(SmcrLink::decode(&link)?);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::super::attributes::emit::{attribute, text_attribute};
    use super::*;

    #[test]
    fn smcd_answer_is_decoded() {
        let mut bytes = attribute(smcd_attribute::ID, &7_u32.to_ne_bytes());
        bytes.extend(attribute(smcd_attribute::GID, &1_u64.to_ne_bytes()));
        bytes.extend(attribute(smcd_attribute::GID_EXT, &2_u64.to_ne_bytes()));
        bytes.extend(attribute(smcd_attribute::PEER_GID, &3_u64.to_ne_bytes()));
        bytes.extend(attribute(smcd_attribute::PEER_GID_EXT, &4_u64.to_ne_bytes()));
        bytes.extend(attribute(smcd_attribute::CHID, &0xff00_u32.to_ne_bytes()));
        bytes.extend(attribute(smcd_attribute::CONNECTIONS, &200_u32.to_ne_bytes()));
        bytes.extend(attribute(smcd_attribute::DMB_BYTES, &65536_u32.to_ne_bytes()));
        let mut v2 = attribute(v2_attribute::VERSION, &[2]);
        v2.extend(attribute(v2_attribute::RELEASE, &[1]));
        v2.extend(text_attribute(v2_attribute::EID, "LAB"));
        bytes.extend(attribute(smcd_attribute::V2, &v2));
        let group = SmcdLinkGroup::decode(&Attributes::parse(&bytes).unwrap()).unwrap();
        assert_eq!(group.my_gid, Gid::from_halves(1, 2));
        assert_eq!(group.peer_gid, Gid::from_halves(3, 4));
        assert_eq!((group.chid, group.connections), (0xff00, 200));
        assert_eq!((group.send_buffer_bytes, group.dmb_bytes), (None, Some(65536)));
        let v2 = group.v2.unwrap();
        assert_eq!((v2.version, v2.eid.as_deref()), (2, Some("LAB")));
    }

    #[test]
    fn version_1_has_no_agreement() {
        let bytes = attribute(smcr_attribute::ID, &7_u32.to_ne_bytes());
        let group = SmcrLinkGroup::decode(&Attributes::parse(&bytes).unwrap()).unwrap();
        assert_eq!(group.v2, None);
    }
}
