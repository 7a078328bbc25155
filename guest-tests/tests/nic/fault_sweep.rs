//! The first, second, third … command of a driver fails in turn: what the driver makes of it, step by step.

use std::time::Duration;
use std::{env, fs};

use guest_harness::{Exit, Guest, Result, find_splats, workspace_dir};

use crate::faults::Faulty;

/// Limit on one step.
const LIMIT: Duration = Duration::from_secs(100);

/// A workload whose commands fail in turn, and what undoes it.
struct Workload {
    name: &'static str,
    run: &'static str,
    undo: &'static str,
}

/// Loading the drivers: the probe of mlx5_core, the netdev and the RDMA device.
const PROBE: Workload = Workload {
    name: "probe",
    run: "modprobe mlx5_core && modprobe mlx5_ib && \
          for try in $(seq 100); do ls /sys/class/infiniband/mlx5_0 && exit 0; sleep 0.1; done 2>/dev/null; exit 1",
    undo: "for m in rdma_ucm mlx5_ib mlx5_core; do [ ! -d /sys/module/$m ] || rmmod $m || exit; done",
};

/// A queue pair, its completion queues and keys, from user space.
const PING_PONG: Workload = Workload {
    name: "RC ping-pong",
    run: "timeout 30 ibv_rc_pingpong -d mlx5_0 -g 1 -c -n 50 > /tmp/server 2>&1 & \
          sleep 1; timeout 20 ibv_rc_pingpong -d mlx5_0 -g 1 -c -n 50 127.0.0.1; status=$?; \
          wait; exit $status",
    undo: "true",
};

/// Outcome of a step of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The workload succeeded.
    Recovered,
    /// The workload failed, and could be undone and repeated.
    FailedCleanly,
    /// Something did not end within its limit.
    Hung,
    /// The kernel reported an error in itself.
    Splat,
    /// The workload could not be undone, or failed without the fault afterwards.
    Broken,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::FailedCleanly => "failed cleanly",
            Self::Hung => "hung",
            Self::Splat => "splat",
            Self::Broken => "broken",
        }
    }
}

/// Runs a workload with its `skip`th command refused. Returns the command, or `None` if there are not that many.
fn sweep_step(faulty: &Faulty, workload: &Workload, skip: u64) -> Result<Option<(String, Outcome, String)>> {
    let guest = faulty.fixture.guest(0);
    guest.run("dmesg -C")?.check()?;
    faulty.apply(&format!(
        "[[fault]]\nkind = \"command_refused\"\nstatus = 1\nsyndrome = 0xfa0175\nskip = {skip}\ncount = 1"
    ));
    let ran = timed(guest, workload.run);
    let struck = faulty.strikes() > 0;
    faulty.apply("");
    if !struck {
        return Ok(None);
    }
    let undone = timed(guest, workload.undo);
    let again = timed(guest, workload.run);
    let undone_again = timed(guest, workload.undo);
    let log = guest.run("dmesg")?.check()?.stdout;
    let outcome = match (&ran, &undone, &again, &undone_again) {
        _ if !find_splats(&log, &[]).is_empty() => Outcome::Splat,
        (None, ..) | (_, None, ..) | (_, _, None, _) | (.., None) => Outcome::Hung,
        (Some(0), Some(0), Some(0), Some(0)) => Outcome::Recovered,
        (Some(_), Some(0), Some(0), Some(0)) => Outcome::FailedCleanly,
        _ => Outcome::Broken,
    };
    let refused = log.lines().find(|line| line.contains("0xfa0175")).unwrap_or("");
    let command = refused
        .split("): ")
        .nth(1)
        .and_then(|text| text.split('(').next())
        .unwrap_or("not logged");
    Ok(Some((command.to_owned(), outcome, log)))
}

/// Runs a script; `None` if it does not end in time, otherwise its exit status.
fn timed(guest: &Guest, script: &str) -> Option<i32> {
    let wrapped = format!("timeout {} sh -c '{script}'", LIMIT.as_secs());
    match guest.shell(&wrapped).timeout(LIMIT * 2).run() {
        Ok(output) => match output.status {
            // The exit status of timeout(1).
            Exit::Code(124) => None,
            Exit::Code(status) => Some(status),
            Exit::Signal(signal) => Some(128 + signal),
        },
        Err(_) => None,
    }
}

fn sweep(workload: &Workload, load: bool) -> Result<String> {
    let faulty = Faulty::new("nic-fault-sweep", 1, &[])?;
    let mut table = String::new();
    if load {
        faulty.fixture.up()?;
    }
    let limit: u64 = env::var("SWEEP_STEPS")
        .ok()
        .and_then(|steps| steps.parse().ok())
        .unwrap_or(1000);
    let begin: u64 = env::var("SWEEP_FROM")
        .ok()
        .and_then(|from| from.parse().ok())
        .unwrap_or(0);
    for skip in begin..begin + limit {
        let Some((command, outcome, log)) = sweep_step(&faulty, workload, skip)? else {
            break;
        };
        let row = format!("| {} | `{command}` | {} |\n", skip + 1, outcome.text());
        eprint!("{}: {row}", workload.name);
        table += &row;
        if matches!(outcome, Outcome::Hung | Outcome::Splat | Outcome::Broken) {
            let path = faulty.fixture.testbed().logs().join(format!("step-{}.log", skip + 1));
            fs::write(path, log).expect("keep the kernel log");
            // The next step needs a kernel without the trouble of this one.
            faulty.fixture.guest(0).kill()?;
            faulty.fixture.guest(0).restart()?;
            if load {
                faulty.fixture.up()?;
            }
        }
    }
    faulty.fixture.testbed().allow_splat("");
    Ok(table)
}

#[test]
#[ignore = "long: loads the drivers twice for every command of the probe"]
fn every_command_of_the_probe_fails_once() -> Result<()> {
    report(&PROBE, sweep(&PROBE, false)?)
}

#[test]
#[ignore = "long: a ping-pong for each of its commands"]
fn every_command_of_a_ping_pong_fails_once() -> Result<()> {
    report(&PING_PONG, sweep(&PING_PONG, true)?)
}

/// Writes the table beside the tests; `docs/fault-sweep.md` has that of the last run.
fn report(workload: &Workload, table: String) -> Result<()> {
    let name = format!("sweep-{}.md", workload.name.replace(' ', "-"));
    let path = workspace_dir().join("target/guest-tests").join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("make the directory");
    fs::write(
        &path,
        format!("| command | opcode | the driver |\n|---|---|---|\n{table}"),
    )
    .expect("write the table");
    eprintln!("{}", path.display());
    assert!(table.lines().count() > 3, "{table}");
    Ok(())
}
