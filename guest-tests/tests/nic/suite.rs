//! rdma-core's test suite in one guest, on the NIC and, for comparison, on software RoCE over the NIC's Ethernet
//! interface.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use guest_harness::{Guest, NIC, Result};
use serde::Deserialize;

use crate::fixture::{Fixture, Setup};

/// Runs one file of the suite.
const PROGRAM: &str = include_str!("suite.py");
/// Expected results by file.
const EXPECTATIONS: &str = include_str!("golden/rdma_core.json");
/// Time limit of one file.
const LIMIT: Duration = Duration::from_secs(240);
/// Warnings about command failures that tests provoke. Tests skipped half-way close the device with CQs left, and the
/// library then frees the UAR before the CQs (`mlx5_free_context`, providers/mlx5/mlx5.c).
const EXPECTED_COMPLAINTS: [&str; 2] = [
    "MODIFY_CQ(0x403) op_mod(0x1) failed, status bad size too many outstanding CQEs",
    "DEALLOC_UAR(0x803) op_mod(0x0) failed, status bad resource state",
];

/// Expected result of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// Minimum of passing tests.
    pass: usize,
    /// Reason for which the other tests are skipped.
    #[serde(default)]
    without: String,
}

/// The device under test, and the device it is compared with.
const NIC_DEVICE: &str = "mlx5_0";
const SOFTWARE_DEVICE: &str = "rxe0";
/// Tests of the whole suite that pass on software RoCE. Some are random, so a few less are accepted; with many less the
/// comparison would be void.
const SOFTWARE_PASSES: usize = 110;
const SOFTWARE_PASSES_AT_LEAST: usize = 100;
/// Number of 2 MiB huge pages.
const HUGE_PAGES: usize = 32;

/// Result of a test.
#[derive(Debug, Deserialize)]
struct Outcome {
    name: String,
    outcome: String,
    seconds: f64,
    why: String,
}

/// Results of a file.
#[derive(Debug, Default)]
struct Count {
    pass: usize,
    skip: usize,
    fail: usize,
    seconds: f64,
    /// One line per failed test.
    failures: Vec<String>,
    /// Number of skipped tests by reason.
    skips: BTreeMap<String, usize>,
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
            ..
        } = self;
        write!(f, "{pass:4} {skip:4} {fail:4} {seconds:6.1}")
    }
}

/// Runs a file on a device.
fn run(guest: &Guest, file: &str, device: &str) -> Result<Count> {
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
            device,
        ])
        .timeout(LIMIT + Duration::from_secs(30))
        .run()?;
    let mut count = Count::default();
    for line in output.stdout.lines() {
        let Outcome {
            name,
            outcome,
            seconds,
            why,
        } = serde_json::from_str(line).expect("each line is the result of a test");
        match outcome.as_str() {
            "pass" => count.pass += 1,
            "skip" => {
                count.skip += 1;
                *count.skips.entry(why).or_default() += 1;
            }
            _ => {
                count.fail += 1;
                count.failures.push(format!("{name} ({seconds} s): {}", why.trim()));
            }
        }
    }
    if !output.success() {
        count.fail += 1;
        count
            .failures
            .push(format!("{file} did not finish: {}\n{}", output.status, output.stderr));
    }
    count.seconds = begin.elapsed().as_secs_f64();
    Ok(count)
}

/// Runs all files on a device.
fn run_all<'a>(
    guest: &Guest,
    files: impl Iterator<Item = &'a String>,
    device: &str,
) -> Result<BTreeMap<String, Count>> {
    let mut counts = BTreeMap::new();
    for file in files {
        let count = run(guest, file, device)?;
        eprintln!("{device} {file:24} {count}");
        for failure in &count.failures {
            eprintln!("  {failure}");
        }
        for (why, skipped) in &count.skips {
            eprintln!("  skipped {skipped}: {}", why.trim());
        }
        counts.insert(file.clone(), count);
    }
    Ok(counts)
}

fn total(counts: &BTreeMap<String, Count>) -> Count {
    let mut total = Count::default();
    counts.values().for_each(|count| total.add(count));
    total
}

#[test]
#[ignore = "long: five minutes"]
fn the_test_suite_of_rdma_core_passes() -> Result<()> {
    let expectations: BTreeMap<String, Expectation> =
        serde_json::from_str(EXPECTATIONS).expect("the expectations are JSON");
    let fixture = Setup::new("nic-suite", 1).memory_mib(1024).start()?;
    let guest = fixture.guest(0);
    guest.put_bytes(PROGRAM.as_bytes(), "/tmp/suite.py", 0o644)?;
    // A test requests more CQ entries than supported; the driver must refuse them, not the memory allocation.
    guest.run("echo 1 > /proc/sys/vm/overcommit_memory")?.check()?;
    let reserve = format!("echo {HUGE_PAGES} > /proc/sys/vm/nr_hugepages; cat /proc/sys/vm/nr_hugepages");
    assert_eq!(guest.run(&reserve)?.check()?.text(), HUGE_PAGES.to_string());

    let hardware = run_all(guest, expectations.keys(), NIC_DEVICE)?;
    let complaints = guest.nic_check_log(&EXPECTED_COMPLAINTS);
    // Both on one interface would be two devices for one address, and the NIC takes RoCE packets from the wire.
    let software = format!(
        "rmmod mlx5_ib && modprobe rdma_rxe && rdma link add {SOFTWARE_DEVICE} type rxe netdev {NIC} && \
         for try in $(seq 50); do \
         grep -q ffff /sys/class/infiniband/{SOFTWARE_DEVICE}/ports/1/gids/1 && exit; sleep 0.1; done; exit 1"
    );
    guest.run(&software)?.check()?;
    let software = run_all(guest, expectations.keys(), SOFTWARE_DEVICE)?;

    eprintln!("{:24} pass skip fail seconds: {NIC_DEVICE}, {SOFTWARE_DEVICE}", "file");
    for (file, count) in &hardware {
        eprintln!("{file:24} {count}    {}", software[file]);
    }
    let (all, software_all) = (total(&hardware), total(&software));
    eprintln!("{:24} {all}    {software_all}", "all");

    let mut wrong = Vec::new();
    for (file, Expectation { pass, without }) in &expectations {
        let count = &hardware[file];
        if count.pass < *pass || count.fail > 0 {
            let failures = count.failures.join("\n");
            wrong.push(format!(
                "{file}: {} pass, {} fail; expected {pass} pass, 0 fail ({without})\n{failures}",
                count.pass, count.fail
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    complaints?;
    assert!(software_all.pass >= SOFTWARE_PASSES_AT_LEAST, "{software_all}");
    assert!(all.pass >= SOFTWARE_PASSES.max(software_all.pass), "{all}");
    finish(fixture)
}

/// Clears the log of the warnings provoked by the suite and finishes.
fn finish(fixture: Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    guest
        .run(&format!(
            "rdma link del {SOFTWARE_DEVICE} && rmmod rdma_rxe && dmesg --clear"
        ))?
        .check()?;
    fixture.finish()
}
