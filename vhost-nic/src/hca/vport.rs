//! The function's virtual port: NIC vport context, address lists and RoCE address table.

use mlx5_prm::vport::{NicVportContext, RoceAddrLayout};

use crate::frame::mac::Mac;
use crate::roce::gid::Gid;
use crate::roce::path::Addresses;

/// Entries of the RoCE address table (`roce_address_table_size`).
pub const ROCE_ADDRESSES: usize = 256;

/// `roce_version` of an entry of the RoCE address table (`MLX5_ROCE_VERSION_*`, `mlx5_ib.h`).
pub mod roce_version {
    /// EtherType 0x8915 and GRH.
    pub const V1: u8 = 0;
    /// UDP.
    pub const V2: u8 = 2;
}

/// The state of the function's virtual port.
#[derive(Debug, Clone)]
pub struct Vport {
    /// Permanent MAC address.
    pub permanent: Mac,
    /// Context as the guest last set it, without address lists.
    pub context: NicVportContext,
    /// Allowed unicast addresses.
    pub unicast: Vec<Mac>,
    /// Allowed multicast addresses.
    pub multicast: Vec<Mac>,
    /// Allowed VLAN ids.
    pub vlans: Vec<u16>,
    /// RoCE address table.
    pub roce_addresses: Vec<RoceAddrLayout>,
}

impl Vport {
    /// Creates a port in its state after reset.
    pub fn new(permanent: Mac, mtu: u16) -> Self {
        let mut context = NicVportContext::default();
        context.set_mtu(mtu);
        Self {
            permanent,
            context,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlans: Vec::new(),
            roce_addresses: vec![RoceAddrLayout::default(); ROCE_ADDRESSES],
        }
    }

    /// Port GUID: the permanent MAC address as an EUI-64.
    pub fn guid(&self) -> u64 {
        self.permanent.to_modified_eui64()
    }

    /// Returns the addresses of an entry of the RoCE address table, unless it is empty.
    pub fn roce_source(&self, index: u8) -> Option<RoceSource> {
        let entry = self.roce_addresses.get(usize::from(index))?;
        let gid = *entry.source_l3_address();
        let v1 = entry.roce_version() == roce_version::V1;
        // An IPv4 address is IPv4-mapped, or plain in the last bytes. RoCE v1 has no such type.
        let gid = match (entry.roce_l3_type(), gid) {
            (0, [.., a, b, c, d]) if !v1 => Gid::from_ipv4([a, b, c, d]),
            (_, gid) => Gid(gid),
        };
        let mac = Mac::from_halves(entry.source_mac_47_32(), entry.source_mac_31_0());
        (mac != Mac::ZERO).then(|| RoceSource {
            v1,
            mac,
            gid,
            vlan: entry.vlan_valid().then(|| entry.vlan_id()),
        })
    }

    /// Whether the RoCE address table has the source of a packet, in its VLAN (0 without a tag).
    pub fn has_roce_source(&self, addresses: &Addresses, vlan: u16) -> bool {
        (0..=u8::MAX).filter_map(|index| self.roce_source(index)).any(|source| {
            source.v1 == addresses.is_v1() && source.gid == addresses.source() && source.vlan.unwrap_or(0) == vlan
        })
    }

    /// Whether frames to this address are the guest's own.
    pub fn is_own(&self, destination: Mac) -> bool {
        destination == self.permanent || self.unicast.contains(&destination)
    }
}

/// Addresses of an entry of the RoCE address table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoceSource {
    /// Whether the entry is of RoCE v1.
    pub v1: bool,
    /// MAC address.
    pub mac: Mac,
    /// Source GID; an IP address for RoCE v2.
    pub gid: Gid,
    /// VLAN id, if tagged.
    pub vlan: Option<u16>,
}

impl RoceSource {
    /// Addresses of packets to a GID.
    pub fn addresses(&self, destination: Gid) -> Addresses {
        match self.v1 {
            true => Addresses::Grh {
                source: self.gid.0,
                destination: destination.0,
            },
            false => Addresses::new(self.gid, destination),
        }
    }
}
