//! Verbs between two guests: the programs that others wrote.

use std::thread;
use std::time::{Duration, Instant};

use guest_tests::{NicOptions, Result};

use crate::lab::{Lab, Setup, step};

const TIMEOUT: Duration = Duration::from_secs(90);

/// Runs a program as server in one guest and as client in another.
fn pair(lab: &Lab, server: usize, client: usize, program: &str) -> Result<()> {
    step(program, || {
        let job = lab.guest(server).spawn(program)?;
        // Most of them tell nobody when they listen.
        thread::sleep(Duration::from_millis(700));
        let run = format!("{program} {}", NicOptions::address(server));
        let started = Instant::now();
        let output = lab.guest(client).shell(&run).timeout(TIMEOUT).run()?;
        println!(
            "  client {:.1} s: {}",
            started.elapsed().as_secs_f64(),
            last_line(&output.stdout)
        );
        if !output.success() {
            println!("  server so far: {:?}", job.peek());
        }
        output.check()?;
        job.wait(TIMEOUT)?.check()?;
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
        pair(&lab, 0, 1, program)?;
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
        pair(&lab, 0, 1, program)?;
    }
    lab.finish()
}

#[test]
fn connections_are_managed() -> Result<()> {
    let lab = Setup::new("nic-cm", 2).start()?;
    let address = NicOptions::address(0);
    for (server, client) in [
        (
            format!("rping -s -a {address} -v -C 10"),
            format!("rping -c -a {address} -v -C 10"),
        ),
        ("ucmatose".to_owned(), format!("ucmatose -s {address}")),
        ("udaddy".to_owned(), format!("udaddy -s {address}")),
    ] {
        step(&client, || {
            let job = lab.guest(0).spawn(&server)?;
            thread::sleep(Duration::from_millis(700));
            lab.guest(1).shell(&client).timeout(TIMEOUT).run()?.check()?;
            job.wait(TIMEOUT)?.check()?;
            Ok(())
        })?;
    }
    lab.finish()
}
