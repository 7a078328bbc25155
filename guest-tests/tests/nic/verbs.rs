//! The RDMA device as seen by user space.

use guest_harness::{NicOptions, Result};

use crate::fixture::Setup;

#[test]
fn the_rdma_port_is_active_and_has_roce_v2_gids() -> Result<()> {
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
    assert!(gids.iter().all(|gid| gid.contains("RoCE v2")), "{gids:?}");
    // Link-local, and one per address.
    let link_local = "fe80:";
    let v4 = format!("::ffff:{}", NicOptions::address(0));
    let v6 = NicOptions::address_v6(0).to_string();
    for address in [link_local, &v4, &v6] {
        assert!(gids.iter().any(|gid| gid.contains(address)), "{address} in {gids:?}");
    }
    let link = guest.run("rdma link show; rdma dev show")?.check()?;
    assert!(
        link.stdout.contains("state ACTIVE physical_state LINK_UP netdev nic0"),
        "{link}"
    );
    fixture.finish()
}
