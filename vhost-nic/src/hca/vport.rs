//! The function's virtual port: addresses, state, RoCE addresses.

use mlx5_prm::vport::{NicVportContext, RoceAddrLayout};

/// Entries of the RoCE address table.
pub const ROCE_ADDRESSES: usize = 32;

/// A MAC address.
pub type Mac = [u8; 6];

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
        let [a, b, c, d, e, f] = self.permanent;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// Whether frames to this address are the guest's own.
    pub fn is_own(&self, destination: &[u8]) -> bool {
        destination == self.permanent || self.unicast.iter().any(|mac| mac == destination)
    }
}
