//! Variables of the guests' commands: names and addresses of devices and guests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use guest_harness::{Guest, NIC, NicOptions};

use crate::share::Share;

/// RDMA device of the NIC, as mlx5_ib names the only one.
const RDMA_DEVICE: &str = "mlx5_0";

/// Returns the variables of a guest. Addresses are those of the NICs, or of the links if there are none.
pub fn variables(guest: &Guest, guests: &[Guest], has_nic: bool, share: &Share) -> Result<Vec<(String, String)>> {
    let addresses = guests.iter().map(|other| {
        let v4 = address(guest, other, has_nic);
        (other.name(), v4, address_v6(guest, other, has_nic))
    });
    let mut variables = list(guest.name(), addresses.collect());
    variables.push(("SHARE".to_owned(), share.folder().display().to_string()));
    if has_nic {
        variables.push(("NETDEV".to_owned(), NIC.to_owned()));
        variables.push(("RDMA_DEVICE".to_owned(), RDMA_DEVICE.to_owned()));
        variables.push(("GID_INDEX".to_owned(), gid_index(guest)?));
    }
    Ok(variables)
}

/// Returns the index of the RoCE v2 GID of the interface's IPv4 address, as perftest's `-x` and `ibv_rc_pingpong -g`
/// take it; empty if there is none.
fn gid_index(guest: &Guest) -> Result<String> {
    let address = NicOptions::address(guest.index()).to_ipv6_mapped().segments();
    let gid: Vec<String> = address.iter().map(|group| format!("{group:04x}")).collect();
    // One process for all of the table, whose 256 entries are slow to look at one by one under emulation.
    let script = format!(
        "cd /sys/class/infiniband/{RDMA_DEVICE}/ports/1 2>/dev/null || exit 0\n\
         for gid in $(grep -lsx {gid} gids/*); do\n\
         \x20 index=${{gid#gids/}}\n\
         \x20 grep -qx 'RoCE v2' gid_attrs/types/$index && echo $index && break\n\
         done\n",
        gid = gid.join(":")
    );
    let found = guest.shell(&script).called("look for the GID").run()?;
    Ok(found.text().to_owned())
}

fn address(from: &Guest, to: &Guest, has_nic: bool) -> Ipv4Addr {
    match (has_nic, from.index() == to.index()) {
        (true, _) => NicOptions::address(to.index()),
        (false, true) => Ipv4Addr::LOCALHOST,
        (false, false) => to.addr(from.index()),
    }
}

fn address_v6(from: &Guest, to: &Guest, has_nic: bool) -> Ipv6Addr {
    match (has_nic, from.index() == to.index()) {
        (true, _) => NicOptions::address_v6(to.index()),
        (false, true) => Ipv6Addr::LOCALHOST,
        (false, false) => to.addr_v6(from.index()),
    }
}

fn list(name: &str, guests: Vec<(&str, Ipv4Addr, Ipv6Addr)>) -> Vec<(String, String)> {
    let names: Vec<&str> = guests.iter().map(|(name, ..)| *name).collect();
    let mut variables = vec![
        ("GUEST".to_owned(), name.to_owned()),
        ("GUESTS".to_owned(), names.join(" ")),
        ("HOME".to_owned(), "/root".to_owned()),
    ];
    let mut add = |key: String, address: IpAddr| variables.push((key, address.to_string()));
    for (other, v4, v6) in &guests {
        let key = other.to_uppercase();
        add(format!("ADDRESS_{key}"), (*v4).into());
        add(format!("ADDRESS6_{key}"), (*v6).into());
    }
    let own = guests.iter().position(|(other, ..)| *other == name);
    if let Some(own) = own {
        add("ADDRESS".to_owned(), guests[own].1.into());
        if guests.len() > 1 {
            let (_, peer, _) = guests[(own + 1) % guests.len()];
            add("PEER".to_owned(), peer.into());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(variables: &'a [(String, String)], key: &str) -> Option<&'a str> {
        let found = variables.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn each_guest_knows_itself_the_others_and_its_peer() {
        let guest = |index: u8, name: &'static str| {
            let v6 = Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, index.into());
            (name, Ipv4Addr::new(10, 5, 0, index), v6)
        };
        let guests = vec![guest(1, "a"), guest(2, "b"), guest(3, "c")];
        let of_c = list("c", guests.clone());
        assert_eq!(get(&of_c, "GUESTS"), Some("a b c"));
        assert_eq!(get(&of_c, "ADDRESS"), Some("10.5.0.3"));
        assert_eq!(get(&of_c, "ADDRESS_B"), Some("10.5.0.2"));
        assert_eq!(get(&of_c, "ADDRESS6_A"), Some("fd05::1"));
        assert_eq!(get(&of_c, "PEER"), Some("10.5.0.1"));
        assert_eq!(get(&list("a", guests), "PEER"), Some("10.5.0.2"));
        assert_eq!(get(&list("a", vec![guest(1, "a")]), "PEER"), None);
    }
}
