//! The function's virtual port: addresses, state, RoCE addresses.

use mlx5_prm::vport::{NicVportContext, RoceAddrLayout};

use crate::frame::mac::Mac;
use crate::roce::gid::Gid;

/// Entries of the RoCE address table.
pub const ROCE_ADDRESSES: usize = 32;

/// The state of the function's virtual port.
#[derive(Debug, Clone)]
pub struct Vport {
    /// The address the function came with.
    pub permanent: Mac,
    /// As last set by the guest; without lists.
    pub context: NicVportContext,
    /// Unicast addresses the guest listens to.
    pub unicast: Vec<Mac>,
    /// Groups the guest listens to.
    pub multicast: Vec<Mac>,
    /// VLANs the guest listens to.
    pub vlans: Vec<u16>,
    /// The RoCE address table.
    pub roce_addresses: Vec<RoceAddrLayout>,
}

impl Vport {
    /// A port as it is after reset.
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

    /// The name of the port in InfiniBand terms: the MAC address as an EUI-64.
    pub fn guid(&self) -> u64 {
        self.permanent.to_modified_eui64()
    }

    /// The addresses of an entry of the RoCE address table, if it is filled in.
    pub fn roce_source(&self, index: u8) -> Option<RoceSource> {
        let entry = self.roce_addresses.get(usize::from(index))?;
        let gid = *entry.source_l3_address();
        // IPv4 addresses are as they are in IPv6, or plain in the last bytes.
        let gid = match (entry.roce_l3_type(), gid) {
            (0, [.., a, b, c, d]) => Gid::from_ipv4([a, b, c, d]),
            (_, gid) => Gid(gid),
        };
        let mac = Mac::from_halves(entry.source_mac_47_32(), entry.source_mac_31_0());
        (mac != Mac::ZERO).then(|| RoceSource {
            mac,
            gid,
            vlan: entry.vlan_valid().then(|| entry.vlan_id()),
        })
    }

    /// Whether frames to this address are the guest's own.
    pub fn is_own(&self, destination: Mac) -> bool {
        destination == self.permanent || self.unicast.contains(&destination)
    }
}

/// The addresses of an entry of the RoCE address table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoceSource {
    /// MAC address.
    pub mac: Mac,
    /// IP address.
    pub gid: Gid,
    /// VLAN id, if there is one.
    pub vlan: Option<u16>,
}
