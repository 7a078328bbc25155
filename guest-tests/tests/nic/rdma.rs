//! Verbs between two guests: the programs that others wrote.

use std::time::Duration;

use guest_tests::{NicOptions, Result};

use crate::lab::{Lab, Setup, step};

const TIMEOUT: Duration = Duration::from_secs(90);

/// Runs a program as server in guest 0 and as client in guest 1.
fn pair(lab: &Lab, program: &str) -> Result<()> {
    step(program, || {
        let both = lab.flow(1, 0).converse_alike(program, TIMEOUT)?;
        let seconds = both.client.elapsed.as_secs_f64();
        println!("  client {seconds:.1} s: {}", last_line(&both.client.stdout));
        Ok(())
    })
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty() && !line.starts_with('-'))
        .unwrap_or("")
}

/// rdma-core's examples, which check the data they exchange with `-c`.
const PING_PONGS: [&str; 8] = [
    "ibv_rc_pingpong -d mlx5_0 -g 1 -c",
    "ibv_rc_pingpong -d mlx5_0 -g 1 -c -e",
    "ibv_uc_pingpong -d mlx5_0 -g 1 -c",
    "ibv_ud_pingpong -d mlx5_0 -g 1 -c -s 1024",
    "ibv_srq_pingpong -d mlx5_0 -g 1 -c",
    "ibv_srq_pingpong -d mlx5_0 -g 1 -c -e",
    "ibv_xsrq_pingpong -d mlx5_0 -g 1",
    "ibv_rc_pingpong -d mlx5_0 -g 1 -c -s 1048577 -n 20",
];

#[test]
fn the_ping_pongs_run_between_two_guests() -> Result<()> {
    let lab = Setup::new("nic-pingpong", 2).start()?;
    for program in PING_PONGS {
        pair(&lab, program)?;
    }
    lab.finish()
}

/// perftest, with few repetitions: what counts is that every operation works.
const PERFTESTS: [&str; 10] = [
    "ib_send_lat -d mlx5_0 -x 1 -n 200 -F",
    "ib_send_bw -d mlx5_0 -x 1 -n 200 -F",
    "ib_write_lat -d mlx5_0 -x 1 -n 200 -F",
    "ib_write_bw -d mlx5_0 -x 1 -n 200 -F -s 65536",
    "ib_read_lat -d mlx5_0 -x 1 -n 200 -F",
    "ib_read_bw -d mlx5_0 -x 1 -n 200 -F",
    "ib_atomic_lat -d mlx5_0 -x 1 -n 200 -F",
    "ib_atomic_bw -d mlx5_0 -x 1 -n 200 -F -A CMP_AND_SWAP",
    "ib_send_bw -d mlx5_0 -x 1 -n 200 -F -c UD -s 1024",
    "ib_write_bw -d mlx5_0 -x 1 -n 200 -F -R",
];

#[test]
fn perftest_runs_between_two_guests() -> Result<()> {
    let lab = Setup::new("nic-perftest", 2).start()?;
    for program in PERFTESTS {
        pair(&lab, program)?;
    }
    lab.finish()
}

#[test]
fn connections_are_managed() -> Result<()> {
    let lab = Setup::new("nic-cm", 2).start()?;
    let address = NicOptions::address(0);
    // Each with the port it listens on by itself.
    for (port, server, client) in [
        (
            7174,
            format!("rping -s -a {address} -v -C 10"),
            format!("rping -c -a {address} -v -C 10"),
        ),
        (7471, "ucmatose".to_owned(), format!("ucmatose -s {address}")),
        (7174, "udaddy".to_owned(), format!("udaddy -s {address}")),
    ] {
        step(&client, || {
            lab.flow(1, 0).converse(port, &server, &client, TIMEOUT).map(drop)
        })?;
    }
    lab.finish()
}
