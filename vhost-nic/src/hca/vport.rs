//! The function's virtual port: NIC vport context, address lists and RoCE address table.

use mlx5_prm::vport::{NicVportContext, RoceAddrLayout};

use crate::roce::gid::Gid;

/// Entries of the RoCE address table (`roce_address_table_size`).
pub const ROCE_ADDRESSES: usize = 32;

/// A MAC address.
pub type Mac = [u8; 6];

/// State of the virtual port.
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
        let [a, b, c, d, e, f] = self.permanent;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// Returns the addresses of an entry of the RoCE address table, unless it is empty.
    pub fn roce_source(&self, index: u8) -> Option<RoceSource> {
        let entry = self.roce_addresses.get(usize::from(index))?;
        let ([a, b], [c, d, e, f]) = (
            entry.source_mac_47_32().to_be_bytes(),
            entry.source_mac_31_0().to_be_bytes(),
        );
        let gid = *entry.source_l3_address();
        // An IPv4 address is IPv4-mapped, or plain in the last bytes.
        let gid = match (entry.roce_l3_type(), gid) {
            (0, [.., a, b, c, d]) => Gid::from_ipv4([a, b, c, d]),
            (_, gid) => Gid(gid),
        };
        let mac = [a, b, c, d, e, f];
        (mac != Mac::default()).then(|| RoceSource {
            mac,
            gid,
            vlan: entry.vlan_valid().then(|| entry.vlan_id()),
        })
    }

    /// Whether the function receives unicast frames to this address.
    pub fn is_own(&self, destination: &[u8]) -> bool {
        destination == self.permanent || self.unicast.iter().any(|mac| mac == destination)
    }
}

/// Addresses of an entry of the RoCE address table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoceSource {
    /// MAC address.
    pub mac: Mac,
    /// Source GID, an IP address.
    pub gid: Gid,
    /// VLAN id, if tagged.
    pub vlan: Option<u16>,
}
