//! Addresses of RoCE ports (IBTA annex A17): IPv6 addresses, or IPv4-mapped IPv6 addresses.

use std::fmt;
use std::net::Ipv6Addr;

use crate::frame::mac::Mac;

/// A global identifier.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// An IPv4 address as `::ffff:a.b.c.d`.
    pub const fn from_ipv4(address: [u8; 4]) -> Self {
        let [a, b, c, d] = address;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Returns the IPv4 address of an IPv4-mapped GID.
    pub const fn ipv4(self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// Whether this is a multicast address.
    pub const fn is_multicast(self) -> bool {
        match self.ipv4() {
            Some([first, ..]) => first >> 4 == 0xe,
            None => self.0[0] == 0xff,
        }
    }

    /// MAC address of a multicast group: `01:00:5e` and 23 bits for IPv4 (RFC 1112), `33:33` and 32 bits for IPv6 (RFC
    /// 2464). `None` for a unicast address.
    pub const fn multicast_mac(self) -> Option<Mac> {
        if !self.is_multicast() {
            return None;
        }
        match self.ipv4() {
            Some([_, b, c, d]) => Some(Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d])),
            None => Some(self.ipv6_multicast_mac()),
        }
    }

    /// MAC address by the rule of IPv6, for any address. Linux rxe listens to it for IPv4 groups as well
    /// (`rxe_mcast_add`, `drivers/infiniband/sw/rxe/rxe_mcast.c`).
    pub const fn ipv6_multicast_mac(self) -> Mac {
        let [.., a, b, c, d] = self.0;
        Mac([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).fmt(formatter)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests;
