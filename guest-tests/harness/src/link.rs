//! Point-to-point Ethernet links between guests.
//!
//! A link is a pair of Unix datagram sockets between two QEMU processes: no TAP device, no privileges. Frames to a
//! guest that is not running are lost, as on a real cable.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::qemu::escape;

/// Default MTU of a link, in bytes.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// A link between two guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    index: u8,
    guests: [usize; 2],
    mtu: u32,
}

impl Link {
    /// Creates the links between every pair of `guests`.
    pub(crate) fn mesh(guests: usize, mtu: u32) -> Vec<Self> {
        let pairs = (0..guests).flat_map(|a| (a + 1..guests).map(move |b| [a, b]));
        (0..=u8::MAX)
            .zip(pairs)
            .map(|(index, guests)| Self { index, guests, mtu })
            .collect()
    }

    /// Returns whether `guest` is at one end.
    pub fn has(&self, guest: usize) -> bool {
        self.guests.contains(&guest)
    }

    /// Returns the number of the guest at the other end.
    pub fn peer_of(&self, guest: usize) -> usize {
        self.guests[usize::from(self.guests[0] == guest)]
    }

    /// Returns the name of the interface, the same in both guests.
    pub fn interface(&self) -> String {
        format!("link{}", self.index)
    }

    /// Returns the IPv4 address of a guest on the link.
    pub fn address(&self, guest: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.index, host_number(guest))
    }

    /// Returns the IPv6 address of a guest on the link.
    pub fn address_v6(&self, guest: usize) -> Ipv6Addr {
        let (index, host) = (self.index.into(), host_number(guest).into());
        Ipv6Addr::new(0xfd00, 0, 0, index, 0, 0, 0, host)
    }

    /// Returns the MAC address of a guest's interface.
    pub fn mac(&self, guest: usize) -> String {
        format!("52:54:00:00:{:02x}:{:02x}", self.index, host_number(guest))
    }

    /// Returns the QEMU arguments of one end.
    pub(crate) fn qemu_args(&self, guest: usize, sockets: &Path) -> Vec<String> {
        let id = self.interface();
        let socket = |guest: usize| -> PathBuf { sockets.join(format!("{id}-{guest}")) };
        vec![
            "-netdev".to_owned(),
            format!(
                "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                escape(&socket(guest)),
                escape(&socket(self.peer_of(guest)))
            ),
            "-device".to_owned(),
            // Without the boot ROM: nothing boots over the network.
            format!("virtio-net-pci,netdev={id},mac={},romfile=", self.mac(guest)),
        ]
    }

    /// Returns a shell script that brings up one end; uses the function `rename`.
    fn setup(&self, guest: usize) -> String {
        format!(
            "rename {mac} {name}\n\
             ip -batch - <<END\n\
             link set {name} mtu {mtu}\n\
             addr add {v4}/24 dev {name}\n\
             addr add {v6}/64 dev {name} nodad\n\
             link set {name} up\n\
             END\n",
            name = self.interface(),
            mac = self.mac(guest),
            mtu = self.mtu,
            v4 = self.address(guest),
            v6 = self.address_v6(guest),
        )
    }
}

/// Returns a shell script that brings up all `links` of a guest.
pub(crate) fn setup_script<'a>(guest: usize, links: impl Iterator<Item = &'a Link>) -> String {
    let mut script = "set -e\n\
        rename() {\n\
        \x20 for device in /sys/class/net/*; do\n\
        \x20   if [ \"$(<$device/address)\" = $1 ]; then ip link set ${device##*/} name $2; return; fi\n\
        \x20 done\n\
        \x20 echo \"there is no interface with address $1\" >&2; return 1\n\
        }\n"
    .to_owned();
    for link in links {
        script.push_str(&link.setup(guest));
    }
    script
}

fn host_number(guest: usize) -> u8 {
    u8::try_from(guest + 1).expect("a testbed has few guests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_joins_every_two_guests_once() {
        let pairs: Vec<[usize; 2]> = Link::mesh(4, 1500).iter().map(|link| link.guests).collect();
        assert_eq!(pairs, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert!(Link::mesh(1, 1500).is_empty());
    }

    #[test]
    fn the_two_ends_fit_together() {
        let link = &Link::mesh(3, 9000)[2];
        assert_eq!((link.peer_of(1), link.peer_of(2)), (2, 1));
        assert_eq!(link.address(1), Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(link.address_v6(2).to_string(), "fd00:0:0:2::3");
        let [near, far] = [1, 2].map(|guest| link.qemu_args(guest, Path::new("/s"))[1].clone());
        assert!(near.contains("local.path=/s/link2-1,") && near.ends_with("remote.path=/s/link2-2"));
        assert!(far.contains("local.path=/s/link2-2,") && far.ends_with("remote.path=/s/link2-1"));
    }
}
