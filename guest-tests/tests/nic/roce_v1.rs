//! RoCE v1 between two guests: verbs with GIDs of that type, and rdma_cm with it as the default. `rdma_rxe` has v2
//! only, and so is no peer for it.

use std::time::Duration;

use guest_harness::{Flow, Guest, NicOptions, Result};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Setup, step};
use crate::operations::{ATOMIC, Pair, Place};

const TIMEOUT: Duration = Duration::from_secs(90);
const V1: &str = "IB/RoCE v1";
/// Path MTU at an interface MTU of 1500 bytes.
const MTU: usize = 1024;

/// Programs of rdma-core that check their data, with the GID of the IPv4 address.
const PROGRAMS: [&str; 5] = [
    "ibv_rc_pingpong -d mlx5_0 -c -s 1048577 -n 20",
    "ibv_uc_pingpong -d mlx5_0 -c",
    "ibv_ud_pingpong -d mlx5_0 -c -s 1024",
    "ibv_srq_pingpong -d mlx5_0 -c -e",
    "ibv_xsrq_pingpong -d mlx5_0",
];

/// Returns the index of the RoCE v1 GID of a guest's IPv4 address.
fn gid_index(guest: &Guest) -> Result<u32> {
    let [a, b, c, d] = NicOptions::address(guest.index()).octets();
    let script = format!(
        "cd /sys/class/infiniband/mlx5_0/ports/1\n\
         for index in $(seq 0 15); do\n\
         \x20 [ \"$(<gids/$index)\" = 0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x} ] || continue\n\
         \x20 [ \"$(<gid_attrs/types/$index)\" = '{V1}' ] && echo $index && exit\n\
         done\n\
         exit 1\n"
    );
    let found = guest.shell(&script).called("find the GID").run()?.check()?;
    Ok(found.text().parse().expect("an index"))
}

fn ping_pongs(fixture: &Fixture) -> Result<()> {
    let gids = [gid_index(fixture.guest(0))?, gid_index(fixture.guest(1))?];
    assert_eq!(
        gids[0], gids[1],
        "both guests have the same addresses in the same order"
    );
    for program in PROGRAMS {
        let program = format!("{program} -g {}", gids[0]);
        step(&program, || {
            let said = fixture.flow(1, 0).converse_alike(&program, TIMEOUT)?.client;
            let good = ["iters in", "success"].iter().any(|word| said.stdout.contains(word));
            assert!(good, "{said}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Every operation at a few sizes, with each byte, completion and GRH checked.
fn operations(fixture: &Fixture) -> Result<()> {
    let places = [1, 0].map(|guest| Place {
        guest: fixture.guest(guest),
        device: "mlx5_0",
        address: NicOptions::address(guest).into(),
        gid_type: V1,
    });
    let pair = Pair::of_devices(&places[0], &places[1])?;
    let order = |service: &str, operations: &[&str], sizes: &[usize], variants: &[&str]| -> Value {
        json!({
            "service": service, "operations": operations, "sizes": sizes, "variants": variants, "mtu": MTU,
            "inline": 65,
        })
    };
    let (sizes, variants) = ([0, 1, 33, MTU, MTU + 1, 1 << 20], ["plain", "inline", "parts"]);
    let reliable = ["send", "send_imm", "send_inv", "write", "write_imm", "read"];
    pair.carry_out(&order("rc", &reliable, &sizes, &variants))?;
    pair.carry_out(&order("rc", &ATOMIC, &[8], &["plain"]))?;
    pair.carry_out(&order(
        "uc",
        &["send", "send_imm", "write", "write_imm"],
        &sizes,
        &variants,
    ))?;
    pair.carry_out(&order("ud", &["send", "send_imm"], &sizes[..4], &variants))
}

/// Makes RoCE v1 the version of connections by rdma_cm.
fn prefer_v1(guest: &Guest) -> Result<()> {
    let script = format!(
        "set -e\n\
         mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config\n\
         cd /sys/kernel/config/rdma_cm\n\
         mkdir mlx5_0\n\
         echo '{V1}' > mlx5_0/ports/1/default_roce_mode\n\
         cat mlx5_0/ports/1/default_roce_mode\n\
         rmdir mlx5_0\n"
    );
    let set = guest.shell(&script).called("prefer RoCE v1").run()?.check()?;
    assert_eq!(set.text(), V1);
    Ok(())
}

fn connections(fixture: &Fixture) -> Result<()> {
    fixture.testbed().each(prefer_v1)?;
    let address = NicOptions::address(0);
    let rping = "rping -V -v -C 10 -S 1000";
    let programs = [
        (
            rping,
            format!("-s -a {address}"),
            format!("-c -a {address}"),
            "rdma-ping-9: ",
        ),
        (
            "ucmatose -c 5",
            String::new(),
            format!("-s {address}"),
            "return status 0",
        ),
        ("udaddy -c 5", String::new(), format!("-s {address}"), "return status 0"),
    ];
    for (program, server, client, good) in programs {
        step(program, || {
            // udaddy always listens on the same port.
            let (port, option) = match program.starts_with("udaddy") {
                true => (7174, String::new()),
                false => {
                    let port = Flow::next_port();
                    (port, format!(" -p {port}"))
                }
            };
            let [server, client] = [&server, &client].map(|end| format!("exec {program}{option} {end}"));
            let said = fixture.flow(1, 0).converse(port, &server, &client, TIMEOUT)?.client;
            assert!(said.stdout.contains(good), "{good:?} in {said}");
            assert!(!said.stdout.contains("failure"), "{said}");
            Ok(())
        })?;
    }
    step("multicast", || multicast(fixture))
}

/// A group of IPv4, which RoCE v1 has at another GID than RoCE v2.
fn multicast(fixture: &Fixture) -> Result<()> {
    let member = |guest: usize| {
        let address = NicOptions::address(guest);
        format!("stdbuf -oL mckey -m 239.5.0.1 -b {address} -C 10 -S 500")
    };
    let receiver = fixture.guest(0).spawn(&member(0))?;
    // The GID that `cma_iboe_set_mgid` (drivers/infiniband/core/cma.c) makes of the group.
    let joined = receiver.wait_line("joined dgid", TIMEOUT)?;
    assert!(joined.contains("joined dgid: ff0e:"), "{joined}");
    let send = format!("{} -s", member(1));
    let said = fixture.guest(1).shell(&send).timeout(TIMEOUT).run()?.check()?;
    assert!(said.stdout.contains("return status 0"), "{said}");
    let said = receiver.wait(TIMEOUT)?.check()?;
    assert!(said.stdout.contains("data transfers complete"), "{said}");
    Ok(())
}

#[test]
fn roce_v1_carries_verbs_connections_and_multicasts() -> Result<()> {
    let fixture = Setup::new("nic-roce-v1", 2).start()?;
    step("operations", || operations(&fixture))?;
    ping_pongs(&fixture)?;
    connections(&fixture)?;
    fixture.finish()
}
