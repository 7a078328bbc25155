//! The RDMA device as seen by user space.

use std::net::Ipv6Addr;

use guest_harness::{NicOptions, Result};

use crate::fixture::Setup;

#[test]
fn the_rdma_port_is_active_and_has_gids_of_both_roce_versions() -> Result<()> {
    let fixture = Setup::new("nic-verbs", 1).start()?;
    let guest = fixture.guest(0);
    let info = guest.run("ibv_devinfo -v")?.check()?;
    for expected in [
        "transport:\t\t\tInfiniBand (0)",
        "state:\t\t\tPORT_ACTIVE (4)",
        "link_layer:\t\tEthernet",
        "vendor_id:\t\t\t0x02c9",
        "vendor_part_id:\t\t\t4119",
    ] {
        assert!(info.stdout.contains(expected), "{expected:?} in {info}");
    }
    assert!(info.stdout.contains("gid_tbl_len:\t\t256"), "{info}");
    // `GID[  1]: fe80::1, RoCE v2`, in long form for RoCE v1.
    let gid = |line: &str| -> Option<(Ipv6Addr, String)> {
        let (gid, version) = line.trim().strip_prefix("GID[")?.split_once(", ")?;
        Some((gid.rsplit('\t').next()?.parse().ok()?, version.to_owned()))
    };
    let mut gids: Vec<(Ipv6Addr, String)> = info.stdout.lines().filter_map(gid).collect();
    gids.sort();
    // Link-local, and one per address, each of both versions.
    let link_local: Ipv6Addr = "fe80::5054:ff:fe00:c501".parse().expect("an address");
    let v4 = NicOptions::address(0).to_ipv6_mapped();
    let v6 = NicOptions::address_v6(0);
    let both = |address: Ipv6Addr| ["RoCE v1", "RoCE v2"].map(|version| (address, version.to_owned()));
    let mut expected: Vec<(Ipv6Addr, String)> = [link_local, v4, v6].into_iter().flat_map(both).collect();
    expected.sort();
    assert_eq!(gids, expected, "{info}");
    let link = guest.run("rdma link show; rdma dev show")?.check()?;
    assert!(
        link.stdout.contains("state ACTIVE physical_state LINK_UP netdev nic0"),
        "{link}"
    );
    fixture.finish()
}
