//! The RDMA device as seen by user space.

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
    let gids: Vec<&str> = info.stdout.lines().filter(|line| line.contains("GID[")).collect();
    assert!(!gids.is_empty(), "{info}");
    assert!(info.stdout.contains("gid_tbl_len:\t\t256"), "{info}");
    // Link-local, and one per address, each of both versions.
    let link_local = "fe80:";
    let v4 = NicOptions::address(0).octets();
    let v4 = format!("ffff:{:02x}{:02x}:{:02x}{:02x}", v4[0], v4[1], v4[2], v4[3]);
    let v6 = NicOptions::address_v6(0).to_string();
    for address in [link_local, &v4, &v6] {
        for version in ["RoCE v1", "RoCE v2"] {
            let found = gids.iter().filter(|gid| gid.contains(address) && gid.contains(version));
            assert_eq!(found.count(), 1, "{address}, {version} in {gids:?}");
        }
    }
    let link = guest.run("rdma link show; rdma dev show")?.check()?;
    assert!(
        link.stdout.contains("state ACTIVE physical_state LINK_UP netdev nic0"),
        "{link}"
    );
    fixture.finish()
}
