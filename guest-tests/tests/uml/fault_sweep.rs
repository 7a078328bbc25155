//! The first, second, third … command, completion and access to memory of the probe of mlx5_core and mlx5_ib fails in
//! turn. User Mode Linux loads the drivers in a fraction of a second. `docs/fault-sweep.md` has the results.

use std::time::Duration;

use guest_harness::sweep::{Occasion, Outcome, Scripts, Step, Sweep, compare_with_page};
use guest_harness::{NicSetup, Result};

use crate::fixture::faulty_testbed;

/// Limit on a run, for several commands that are not answered.
const LIMIT: Duration = Duration::from_secs(20);

/// Commands that are not answered are given up after this, not after a minute. The health check, which looks every two
/// to three seconds, is faster, as it is by default.
const SHORT_COMMANDS: &str = "[[fault]]\nkind = \"command_timeout\"\nlimit = \"5s\"\n";

/// RDS frees what it has of an RDMA device on a workqueue, at times too late: one unbinding in a hundred warns.
const RDS_RACE: &str = "rdma_restrack_clean";

/// It frees a protection domain whose key a device that is gone cannot destroy (`rds_ib_dev_free`, net/rds/ib.c).
const RDS_DOMAIN: &str = "at ib_dealloc_pd_user";

/// Probe, until the interface has a carrier and the RDMA device exists.
const PROBE: &str = "
    cd /sys/bus/pci/devices/0000:00:00.0 || exit 1
    echo 0000:00:00.0 > /sys/bus/pci/drivers/mlx5_core/bind || exit 1
    interface=$(ls net) && ls infiniband/mlx5_0 > /dev/null && ip link set $interface up || exit 1
    for try in $(seq 30); do [ $(cat net/$interface/carrier) = 1 ] && exit 0; sleep 0.1; done
    exit 1
";

const UNBIND: &str = "
    [ ! -e /sys/bus/pci/drivers/mlx5_core/0000:00:00.0 ] || echo 0000:00:00.0 > /sys/bus/pci/drivers/mlx5_core/unbind
";

/// Occasions that fail: every `stride`th.
struct Range {
    occasion: Occasion,
    stride: u64,
}

impl Range {
    fn all(occasion: Occasion) -> Self {
        Self { occasion, stride: 1 }
    }
}

/// Sweeps the ranges, each of at most `at_most` steps, in a guest of this name.
fn sweep(name: &str, ranges: &[Range], at_most: u64) -> Result<Vec<Step>> {
    let (testbed, control) = faulty_testbed(name, 1, true)?;
    let guest = testbed.guest(0);
    let set_up = || {
        guest.nic_load(NicSetup::default().rdma)?;
        guest.nic_unload()
    };
    set_up()?;
    let scripts = Scripts {
        guest,
        run: PROBE,
        undo: UNBIND,
        limit: LIMIT,
        set_up: &set_up,
    };
    let mut steps = Vec::new();
    for range in ranges {
        let sweep = Sweep {
            occasion: range.occasion.clone(),
            guest: "nic-0".to_owned(),
            first: 1,
            steps: at_most,
            stride: range.stride,
            background: SHORT_COMMANDS.to_owned(),
            allowed_splats: [RDS_RACE, RDS_DOMAIN].map(str::to_owned).to_vec(),
        };
        steps.extend(sweep.run(&control, &scripts, Step::print)?);
    }
    assert!(steps.len() >= ranges.len(), "{steps:?}");
    testbed.allow_splat("");
    Ok(steps)
}

/// Sweeps all occasions of the ranges, and compares the steps with their section of the page.
fn sweep_all(section: &str, ranges: &[Range]) -> Result<()> {
    let steps = sweep("uml-fault-sweep", ranges, 1000)?;
    compare_with_page(
        section,
        &steps,
        ranges.iter().all(|range| range.occasion == Occasion::Command),
    )
}

/// The beginning, the middle and the end of the probe.
#[test]
fn three_commands_of_the_probe_fail_once() -> Result<()> {
    let range = Range {
        occasion: Occasion::Command,
        stride: 80,
    };
    let steps = sweep("uml-short-sweep", &[range], 3)?;
    let numbers: Vec<u64> = steps.iter().map(|step| step.number).collect();
    assert_eq!(numbers, [1, 81, 161]);
    assert_eq!(
        (&*steps[0].object, steps[0].outcome),
        ("ENABLE_HCA", Outcome::FailedCleanly)
    );
    for step in &steps {
        assert!(!step.outcome.is_bad(), "{step:?}");
        assert!(!step.log.is_empty() || step.outcome == Outcome::Recovered, "{step:?}");
    }
    Ok(())
}

#[test]
#[ignore = "long: loads the drivers twice for every command of the probe"]
fn every_command_of_the_probe_fails_once() -> Result<()> {
    sweep_all("probe, commands", &[Range::all(Occasion::Command)])
}

#[test]
#[ignore = "long: loads the drivers twice for every completion of the probe"]
fn every_completion_of_the_probe_fails_once() -> Result<()> {
    sweep_all("probe, completions", &[Range::all(Occasion::Cqe)])
}

/// A command whose memory fails, or that of its event, costs a guest: of those, a few are swept.
#[test]
#[ignore = "long: loads the drivers twice for every access of the probe to memory"]
fn accesses_of_the_probe_fail_once() -> Result<()> {
    let purposes = [
        ("command_fetch", 200),
        ("command_reply", 100),
        ("doorbell_record", 1),
        ("send_wqe", 1),
        ("receive_wqe", 1),
        ("gather", 1),
        ("scatter", 1),
        ("cqe", 1),
        ("eqe", 100),
        ("translation", 1),
    ];
    let ranges = purposes.map(|(purpose, stride)| Range {
        occasion: Occasion::Dma(Some(purpose.to_owned())),
        stride,
    });
    sweep_all("probe, memory", &ranges)
}

#[test]
#[ignore = "long: resets the function at every fifth command of the probe"]
fn the_function_is_reset_during_the_probe() -> Result<()> {
    let range = Range {
        occasion: Occasion::Reset,
        stride: 5,
    };
    sweep_all("probe, resets", &[range])
}
