//! The first, second, third … command, completion and access to memory of `ibv_rc_pingpong` fails in turn: what driver
//! and program make of it, step by step. `docs/fault-sweep.md` has the results.

use std::time::Duration;

use guest_harness::Result;
use guest_harness::sweep::{Occasion, Scripts, Step, Sweep, Workload, compare_with_page};

use crate::faults::Faulty;

/// Limit on a run.
const LIMIT: Duration = Duration::from_secs(60);

/// Two processes of a guest; when one fails, the other is ended, as it may wait for it for ever.
const PING_PONG: &str = "
    program=\"ibv_rc_pingpong -d mlx5_0 -g 3 -c -n 3\"
    timeout 10 $program > /tmp/server 2>&1 & server=$!
    for try in $(seq 50); do ss -Hltn \"sport = :18515\" | grep -q . && break; sleep 0.1; done
    timeout 10 $program 127.0.0.1 > /tmp/client 2>&1 & client=$!
    wait -n; first=$?
    [ $first = 0 ] || { sleep 0.5; kill $server $client 2>/dev/null; }
    wait $server; one=$?
    wait $client; other=$?
    for status in $first $one $other; do [ $status = 0 ] || exit $status; done
";

/// Purposes of the accesses to memory that fail, and how many do. Those of commands and their events are swept with the
/// probe. The first CQE is that of a registration, for which a process waits until the guest is booted anew.
const PURPOSES: [(&str, u64); 6] = [
    ("doorbell_record", 1000),
    ("send_wqe", 1000),
    ("receive_wqe", 1000),
    ("gather", 1000),
    ("scatter", 1000),
    ("cqe", 1),
];

/// Loads the driver anew, for a function that was reset.
const REBIND: &str = "
    cd /sys/bus/pci/drivers/mlx5_core || exit 1
    for function in 0000:*; do
        echo $function > unbind || exit 1
        echo $function > bind || exit 1
    done
";

/// Ping-pong, undone by a driver that is loaded anew.
struct Rebound<'a> {
    scripts: Scripts<'a>,
}

impl Workload for Rebound<'_> {
    fn run(&self) -> Option<i32> {
        self.scripts.run()
    }

    fn undo(&self) -> Option<i32> {
        let guest = self.scripts.guest;
        match self.scripts.undo() {
            Some(0) => Some(i32::from(
                guest.nic_load(true).and_then(|()| guest.nic_configure(1500)).is_err(),
            )),
            failure => failure,
        }
    }

    fn take_log(&self) -> String {
        self.scripts.take_log()
    }

    fn restore(&self) -> Result<()> {
        self.scripts.restore()
    }
}

/// Occasions that fail: every `stride`th, at most `steps`.
struct Range {
    occasion: Occasion,
    steps: u64,
    stride: u64,
}

fn sweep(name: &str, ranges: &[Range]) -> Result<()> {
    let faulty = Faulty::new("nic-fault-sweep", 1, &[])?;
    faulty.fixture.up()?;
    let mut steps = Vec::new();
    for range in ranges {
        let is_reset = range.occasion == Occasion::Reset;
        let scripts = Scripts {
            guest: faulty.fixture.guest(0),
            run: PING_PONG,
            undo: if is_reset { REBIND } else { "true" },
            limit: LIMIT,
            set_up: &|| faulty.fixture.up(),
        };
        let sweep = Sweep {
            occasion: range.occasion.clone(),
            guest: "nic-0".to_owned(),
            first: 1,
            steps: range.steps,
            stride: range.stride,
            background: String::new(),
            allowed_splats: Vec::new(),
        };
        steps.extend(match is_reset {
            true => sweep.run(&faulty.control, &Rebound { scripts }, Step::print)?,
            false => sweep.run(&faulty.control, &scripts, Step::print)?,
        });
    }
    assert!(steps.len() >= ranges.len(), "{steps:?}");
    faulty.fixture.testbed().allow_splat("");
    // The commands of the two processes come in any order.
    compare_with_page(name, &steps, false)
}

fn all(occasion: Occasion) -> Range {
    Range {
        occasion,
        steps: 1000,
        stride: 1,
    }
}

#[test]
#[ignore = "long: a ping-pong for each of its commands"]
fn every_command_of_a_ping_pong_fails_once() -> Result<()> {
    sweep("ping-pong, commands", &[all(Occasion::Command)])
}

#[test]
#[ignore = "long: a ping-pong for each of its completions"]
fn every_completion_of_a_ping_pong_fails_once() -> Result<()> {
    sweep("ping-pong, completions", &[all(Occasion::Cqe)])
}

#[test]
#[ignore = "long: a ping-pong for each of its accesses to memory"]
fn every_access_of_a_ping_pong_fails_once() -> Result<()> {
    sweep(
        "ping-pong, memory",
        &PURPOSES.map(|(purpose, steps)| Range {
            steps,
            ..all(Occasion::Dma(Some(purpose.to_owned())))
        }),
    )
}

/// The driver is loaded anew after each, as it does not enable a function that was reset.
#[test]
#[ignore = "long: loads the driver twice for every sixth command of a ping-pong"]
fn the_function_is_reset_during_a_ping_pong() -> Result<()> {
    let range = Range {
        stride: 6,
        ..all(Occasion::Reset)
    };
    sweep("ping-pong, resets", &[range])
}
