//! RoCE v2 between the NIC and the kernel's software RoCE (rdma_rxe), whose guest has a virtio-net device at a port of
//! the same switch. `docs/interop.md` has the results.

mod outcome;
pub mod peers;
pub mod programs;

use guest_harness::{Error, Result};
use serde_json::{Value, json};

use crate::operations::{ATOMIC, Pair, Place};
use outcome::{Difference, Outcome, compare_with_page, table_of};
use peers::{End, Peers};

/// The pingpong programs of rdma-core, which check the data with `-c`.
const PING_PONGS: [&str; 7] = [
    "ibv_rc_pingpong -c",
    "ibv_rc_pingpong -c -e",
    "ibv_rc_pingpong -c -s 1048577 -n 20",
    "ibv_uc_pingpong -c",
    "ibv_ud_pingpong -c -s 1024",
    "ibv_srq_pingpong -c",
    "ibv_srq_pingpong -c -e",
];

/// A perftest program of each kind.
const SOME: [&str; 10] = [
    "ib_send_lat -n 200",
    "ib_send_bw -n 200 -e",
    "ib_write_lat -n 200 -c UC",
    "ib_write_bw -n 200 -s 65536",
    "ib_write_bw -n 200 -R",
    "ib_read_lat -n 200",
    "ib_read_bw -n 200",
    "ib_atomic_lat -n 200",
    "ib_atomic_bw -n 200 -A CMP_AND_SWAP",
    "ib_send_bw -n 200 -c UD -s 1024",
];

/// Programs of perftest with all sizes from 2 bytes to 8 MiB.
/// A burst of UC sends is as long as a queue on the way: UC has no flow control, and perftest waits for what is lost.
const SIZES: [&str; 5] = [
    "ib_send_bw -a -n 16",
    "ib_write_bw -a -n 16",
    "ib_read_bw -a -n 16",
    "ib_send_bw -s 8192 -n 16 -c UC",
    "ib_write_bw -a -n 16 -c UC",
];

/// Loss, duplication, reordering and corruption, of one frame in a hundred each.
const BAD_WIRE: &str = r#"
[[fault]]
kind = "frame_loss"
probability = 0.01

[[fault]]
kind = "frame_duplicate"
probability = 0.01

[[fault]]
kind = "frame_reorder"
probability = 0.01

[[fault]]
kind = "frame_corrupt"
probability = 0.01
"#;

/// Differences that are not faults of the NIC.
const KNOWN: &[Difference] = &[(
    "rc send_inv",
    true,
    "rdma_rxe reports `IBV_WC_IP_CSUM_OK` for `IBV_WC_WITH_INV` ([below](#differences))",
)];

#[test]
fn the_nic_and_software_roce_talk_to_each_other() -> Result<()> {
    let peers = Peers::start("nic-interop")?;
    let mut outcomes = vec![peers.both_ways("ping -c 5 -s 1472", |client, server| {
        client.to(server).ping(5, 1472).map(drop)
    })];
    outcomes.extend(
        PING_PONGS
            .map(|program| peers.both_ways(program, |client, server| programs::ping_pong(client, server, program))),
    );
    outcomes.extend(
        programs::CONNECTED
            .map(|program| peers.both_ways(program.0, |client, server| programs::connect(client, server, program))),
    );
    outcomes.extend(
        SOME.map(|program| peers.both_ways(program, |client, server| programs::perftest(client, server, program))),
    );
    compare_with_page("programs", &outcomes, KNOWN);
    peers.finish()
}

#[test]
#[ignore = "long: a boot of its own"]
fn multicast_reaches_software_roce_and_back() -> Result<()> {
    let peers = Peers::start("nic-interop-multicast")?;
    let outcomes = [peers.both_ways("mckey -C 10 -S 500", programs::multicast)];
    compare_with_page("multicast", &outcomes, KNOWN);
    peers.finish()
}

#[test]
#[ignore = "long: perftest with all sizes up to 8 MiB, both ways"]
fn perftest_runs_against_software_roce_with_all_sizes() -> Result<()> {
    let peers = Peers::start("nic-interop-sizes")?;
    let outcomes =
        SIZES.map(|program| peers.both_ways(program, |client, server| programs::perftest(client, server, program)));
    compare_with_page("sizes", &outcomes, KNOWN);
    peers.finish()
}

/// Path MTU of the connections.
const MTU: usize = 1024;

fn order(service: &str, operations: &[&str], sizes: &[usize], variants: &[&str]) -> Value {
    json!({
        "service": service, "operations": operations, "sizes": sizes, "variants": variants, "mtu": MTU, "inline": 65,
    })
}

/// Every operation by itself, at every size.
fn orders() -> Vec<(String, Value)> {
    let sizes = [0, 1, 31, 32, 33, 63, 64, 65, MTU - 1, MTU, MTU + 1, 1 << 20];
    let datagrams: Vec<usize> = sizes.into_iter().filter(|&size| size <= MTU).collect();
    let mut orders = Vec::new();
    let mut add = |service: &str, operation: &str, sizes: &[usize], variants: &[&str]| {
        let order = order(service, &[operation], sizes, variants);
        orders.push((format!("{service} {operation}"), order));
    };
    let variants = ["plain", "inline", "parts"];
    for operation in ["send", "send_imm", "send_inv", "write", "write_imm", "read"] {
        add("rc", operation, &sizes, &variants);
    }
    for operation in ATOMIC {
        add("rc", operation, &[8], &["plain"]);
    }
    for operation in ["send", "send_imm", "write", "write_imm"] {
        add("uc", operation, &sizes, &variants);
    }
    for operation in ["send", "send_imm"] {
        add("ud", operation, &datagrams, &variants);
    }
    orders
}

/// The operations of a service together, at few sizes; without the one in which the two differ.
fn few_orders() -> [(&'static str, Value); 4] {
    let (sizes, variants) = ([1, 33, MTU + 1], ["plain", "parts"]);
    let transfers = ["send", "send_imm", "write", "write_imm", "read"];
    [
        ("rc", order("rc", &transfers, &sizes, &variants)),
        ("rc atomics", order("rc", &ATOMIC, &[8], &["plain"])),
        ("uc", order("uc", &transfers[..4], &sizes, &variants)),
        ("ud", order("ud", &transfers[..2], &[1, 33, MTU], &variants)),
    ]
}

fn place(end: End<'_>) -> Place<'_> {
    Place {
        guest: end.guest,
        device: end.device,
        address: end.address.into(),
        gid_type: "RoCE v2",
    }
}

/// Carries out an order, with every byte and every completion checked by `operations.py`.
fn carry_out(requester: End<'_>, responder: End<'_>, order: &Value) -> Result<()> {
    let pair = Pair::of_devices(&place(requester), &place(responder))?;
    match pair.fault_of(order)? {
        None => Ok(()),
        Some(fault) => Err(Error::Agent(fault)),
    }
}

#[test]
fn data_arrive_at_and_from_software_roce() -> Result<()> {
    let peers = Peers::start("nic-interop-data")?;
    let outcomes = few_orders()
        .map(|(name, order)| peers.both_ways(name, |requester, responder| carry_out(requester, responder, &order)));
    table_of(&outcomes, &[]);
    peers.finish()
}

#[test]
#[ignore = "long: every operation at every size, both ways"]
fn every_operation_carries_its_data_to_and_from_software_roce() -> Result<()> {
    let peers = Peers::start("nic-interop-operations")?;
    let outcomes: Vec<Outcome> = orders()
        .iter()
        .map(|(name, order)| peers.both_ways(name, |requester, responder| carry_out(requester, responder, order)))
        .collect();
    compare_with_page("operations", &outcomes, KNOWN);
    peers.finish()
}

#[test]
#[ignore = "long: retransmissions wait for timeouts"]
fn data_arrive_at_and_from_software_roce_over_a_bad_wire() -> Result<()> {
    const LARGE: &str = "ibv_rc_pingpong -c -s 1048577 -n 20";
    let transfers = ["send", "send_imm", "write", "write_imm", "read"];
    let sizes = [1, 33, MTU + 1, 16 * MTU, 1 << 20];
    let orders = [
        ("rc transfers", order("rc", &transfers, &sizes, &["plain", "parts"])),
        ("rc atomics", order("rc", &ATOMIC, &[8], &["plain"])),
    ];
    let peers = Peers::start("nic-interop-loss")?;
    peers.apply(BAD_WIRE)?;
    let mut outcomes = vec![peers.both_ways(LARGE, |client, server| programs::ping_pong(client, server, LARGE))];
    for (name, order) in &orders {
        outcomes.push(peers.both_ways(name, |requester, responder| carry_out(requester, responder, order)));
    }
    let strikes = peers.strikes()?;
    assert!(
        strikes.len() == 4 && strikes.iter().all(|&strikes| strikes > 100),
        "{strikes:?}"
    );
    peers.apply("")?;
    compare_with_page("loss", &outcomes, KNOWN);
    peers.finish()
}
