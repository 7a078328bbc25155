//! perftest on the NIC: every operation works with every option; speed does not matter.

use std::time::Duration;

use guest_harness::Result;

use crate::fixture::{Fixture, Setup, step};

/// Limit on a run: some programs first fill their memory byte by byte.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Common options: the NIC, the GID of the IPv4 address, no check of the processor's clock rate.
const COMMON: &str = "-d mlx5_0 -x 3 -F";
/// Number of sizes of `-a`: powers of two from 2^1 to 2^23.
const ALL_SIZES: usize = 23;

/// Runs a program between two guests or within one; both ends must succeed with a result for each size.
fn run(fixture: &Fixture, server: usize, client: usize, program: &str) -> Result<()> {
    let place = if server == client { "within" } else { "between" };
    step(&format!("{program}, {place}"), || {
        let said = fixture
            .flow(client, server)
            .converse_alike(&format!("{program} {COMMON}"), TIMEOUT)?
            .client;
        assert_eq!(results(&said.stdout), expected_results(program), "{said}");
        Ok(())
    })
}

/// Returns the number of results that a program prints.
pub fn expected_results(program: &str) -> usize {
    match program.split(' ').any(|argument| argument == "-a") {
        true => ALL_SIZES,
        false => 1,
    }
}

/// Counts result lines: size, iterations and measurements. The values do not matter: the time stamp counters of a guest
/// may differ, and a few iterations then seem to take no time, or forever.
pub fn results(text: &str) -> usize {
    text.lines()
        .filter(|line| {
            let fields: Vec<f64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
            fields.len() >= 5 && fields[1] > 0.0
        })
        .count()
}

/// A selection with every program and every option.
const SOME: [&str; 16] = [
    "ib_send_lat -n 200",
    "ib_send_bw -n 200",
    "ib_write_lat -n 200",
    "ib_write_bw -n 200 -s 65536",
    "ib_read_lat -n 200",
    "ib_read_bw -n 200",
    "ib_atomic_lat -n 200",
    "ib_atomic_bw -n 200 -A CMP_AND_SWAP",
    "ib_send_bw -n 200 -c UD -s 1024",
    "ib_send_lat -n 200 -c UC -I 0",
    "ib_send_bw -n 192 -e -s 64",
    "ib_write_bw -n 200 -R",
    "ib_write_bw -n 192 -c UC -l 8 -s 64 -I 64",
    "ib_read_bw -n 200 -Q 20",
    "ib_send_bw -n 200 -b",
    "ib_read_bw -n 16 -a",
];

#[test]
fn perftest_runs() -> Result<()> {
    let fixture = Setup::new("nic-perftest", 2).start()?;
    for (at, program) in SOME.into_iter().enumerate() {
        run(&fixture, 0, 1, program)?;
        // Loopback uses the same engine, so half of the programs are enough.
        if at % 2 == 0 {
            run(&fixture, 0, 0, program)?;
        }
    }
    fixture.finish()
}

/// Returns every program with every option. `-e` is for bandwidth only: the latency programs wait for an event and then
/// poll once, but an event need not bring a completion (ibv_get_cq_event(3)). The connection manager does not support
/// UC, so `-R` is left out there.
fn all() -> Vec<String> {
    let mut programs = Vec::new();
    let mut add = |program: &str, options: &[&str]| {
        let all = options.iter().map(|option| format!("{program} {option}"));
        programs.extend(all.filter(|command| !(command.contains("-c UC") && command.contains("-R"))));
    };
    let latency = ["-a -n 16", "-s 64 -n 100 -I 64", "-s 64 -n 100 -I 0", "-s 64 -n 100 -R"];
    let bandwidth = [
        "-a -n 16",
        "-s 64 -n 192 -l 8",
        "-s 64 -n 192 -Q 16",
        "-s 64 -n 192 -l 16 -Q 16",
        "-s 4096 -n 192 -b",
        "-s 4096 -n 192 -R",
        "-s 4096 -n 192 -q 4",
    ];
    for kind in ["-c RC", "-c UC"] {
        add(&format!("ib_send_lat {kind}"), &latency);
        add(&format!("ib_write_lat {kind}"), &latency);
        add(&format!("ib_send_bw {kind}"), &bandwidth);
        add(&format!("ib_write_bw {kind}"), &bandwidth);
        add(
            &format!("ib_send_bw {kind}"),
            &["-s 64 -n 192 -I 64", "-s 64 -n 192 -e"],
        );
        add(&format!("ib_write_bw {kind}"), &["-s 64 -n 192 -I 64"]);
    }
    add("ib_send_lat -c UD", &["-s 2 -n 100", "-s 1024 -n 100 -I 0"]);
    add(
        "ib_send_bw -c UD",
        &["-s 2 -n 192", "-s 1024 -n 192", "-s 64 -n 192 -l 8", "-s 64 -n 192 -e"],
    );
    add("ib_read_lat", &["-a -n 16", "-s 64 -n 100 -R"]);
    add("ib_read_bw", &bandwidth);
    add("ib_read_bw", &["-s 64 -n 192 -e", "-s 64 -n 192 -o 1"]);
    for kind in ["-A CMP_AND_SWAP", "-A FETCH_AND_ADD"] {
        add(&format!("ib_atomic_lat {kind}"), &["-n 100", "-n 100 -R"]);
        add(
            &format!("ib_atomic_bw {kind}"),
            &["-n 192", "-n 192 -Q 16", "-n 192 -b", "-n 192 -R", "-n 192 -e"],
        );
    }
    programs
}

#[test]
#[ignore = "long: ten minutes"]
fn perftest_runs_in_every_manner() -> Result<()> {
    let fixture = Setup::new("nic-perftest-all", 2).start()?;
    for program in all() {
        run(&fixture, 0, 1, &program)?;
        run(&fixture, 0, 0, &program)?;
    }
    fixture.finish()
}

#[test]
fn lines_of_results_are_counted() {
    let text = "\
 #bytes     #iterations    BW peak[MiB/sec]    BW average[MiB/sec]   MsgRate[Mpps]
 65536      200              0.00               1189.41            0.019031
 local address: LID 0000 QPN 0x0047 PSN 0x7ff0a4
 65536      0                0.00               0.00               0.0
";
    assert_eq!(results(text), 1);
}
