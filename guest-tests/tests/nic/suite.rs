//! rdma-core's own test suite, in one guest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use guest_tests::{Guest, Result};
use serde::Deserialize;

use crate::lab::{Lab, Setup};

/// Runs one file of the suite.
const PROGRAM: &str = include_str!("suite.py");
/// What each file is to come to.
const EXPECTATIONS: &str = include_str!("golden/rdma_core.json");
/// For one file.
const LIMIT: Duration = Duration::from_secs(240);
/// What the driver says of refusals that tests are after.
const EXPECTED_COMPLAINTS: [&str; 1] =
    ["MODIFY_CQ(0x403) op_mod(0x1) failed, status bad size too many outstanding CQEs"];

/// What a file of the suite is to come to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// As many tests pass, at least.
    pass: usize,
    /// As many fail, at most.
    #[serde(default)]
    fail: usize,
    /// Why any fails.
    #[serde(default)]
    because: String,
    /// As many pass on software RoCE (rdma_rxe), for comparison.
    rxe: usize,
}

/// What a test came to.
#[derive(Debug, Deserialize)]
struct Outcome {
    name: String,
    outcome: String,
    seconds: f64,
    why: String,
}

/// What a file came to.
#[derive(Debug, Default)]
struct Count {
    pass: usize,
    skip: usize,
    fail: usize,
    seconds: f64,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.pass += other.pass;
        self.skip += other.skip;
        self.fail += other.fail;
        self.seconds += other.seconds;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pass,
            skip,
            fail,
            seconds,
        } = self;
        write!(
            f,
            "{:4} / {pass:3} / {skip:3} / {fail:3} / {seconds:6.1}",
            pass + skip + fail
        )
    }
}

/// Runs a file. Returns what it came to, and a line for each test that fails.
fn run(guest: &Guest, file: &str) -> Result<(Count, Vec<String>)> {
    let begin = Instant::now();
    let seconds = LIMIT.as_secs();
    let output = guest
        .command([
            "timeout",
            "-s",
            "KILL",
            &seconds.to_string(),
            "python3",
            "/tmp/suite.py",
            file,
            "mlx5_0",
        ])
        .timeout(LIMIT + Duration::from_secs(30))
        .run()?;
    let mut count = Count::default();
    let mut failures = Vec::new();
    for line in output.stdout.lines() {
        let Outcome {
            name,
            outcome,
            seconds,
            why,
        } = serde_json::from_str(line).expect("a line is a test");
        match outcome.as_str() {
            "pass" => count.pass += 1,
            "skip" => count.skip += 1,
            _ => {
                count.fail += 1;
                failures.push(format!("{name} ({seconds} s): {}", why.trim()));
            }
        }
    }
    if !output.success() {
        count.fail += 1;
        failures.push(format!(
            "{file} did not come to its end: {}\n{}",
            output.status, output.stderr
        ));
    }
    count.seconds = begin.elapsed().as_secs_f64();
    Ok((count, failures))
}

#[test]
#[ignore = "long: three minutes"]
fn the_test_suite_of_rdma_core_passes() -> Result<()> {
    let expectations: BTreeMap<String, Expectation> =
        serde_json::from_str(EXPECTATIONS).expect("the expectations are JSON");
    let lab = Setup::new("nic-suite", 1).memory_mib(1024).start()?;
    let guest = lab.guest(0);
    guest.put_bytes(PROGRAM.as_bytes(), "/tmp/suite.py", 0o644)?;
    // A test asks for more entries of a completion queue than there may be; to refuse them is the driver's, not the memory's.
    guest.run("echo 1 > /proc/sys/vm/overcommit_memory")?.check()?;

    let mut wrong = Vec::new();
    let mut total = Count::default();
    eprintln!(
        "{:24} {:>4} / pass / skip / fail / seconds (passes of rxe)",
        "file", "n"
    );
    for (file, expected) in &expectations {
        let (count, failures) = run(guest, file)?;
        eprintln!("{file:24} {count} ({})", expected.rxe);
        for failure in &failures {
            eprintln!("  {failure}");
        }
        if count.pass < expected.pass || count.fail > expected.fail {
            wrong.push(format!(
                "{file}: {} pass, {} fail; expected {} and {}{}\n{}",
                count.pass,
                count.fail,
                expected.pass,
                expected.fail,
                if expected.because.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", expected.because)
                },
                failures.join("\n")
            ));
        }
        total.add(&count);
    }
    eprintln!(
        "{:24} {total} ({})",
        "all",
        expectations.values().map(|expected| expected.rxe).sum::<usize>()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    finish(lab)
}

/// The refusals that the suite provokes are no complaints.
fn finish(lab: Lab) -> Result<()> {
    let guest = lab.guest(0);
    guest.nic_check_log(&EXPECTED_COMPLAINTS)?;
    guest.run("dmesg --clear")?.check()?;
    lab.finish()
}
