//! The first, second, third … command, completion and access to memory of `ibv_rc_pingpong` fails in turn: what driver
//! and program make of it, step by step. `docs/fault-sweep.md` has the results.

use std::time::Duration;

use guest_harness::Result;
use guest_harness::sweep::{Occasion, Scripts, Step, Sweep, compare_with_page};

use crate::faults::Faulty;

/// Limit on a run.
const LIMIT: Duration = Duration::from_secs(60);

/// Two processes of a guest; when one fails, the other is ended, as it may wait for it for ever.
const PING_PONG: &str = "
    program=\"ibv_rc_pingpong -d mlx5_0 -g 1 -c -n 3\"
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

fn sweep(name: &str, occasions: &[(Occasion, u64)]) -> Result<()> {
    let faulty = Faulty::new("nic-fault-sweep", 1, &[])?;
    faulty.fixture.up()?;
    let scripts = Scripts {
        guest: faulty.fixture.guest(0),
        run: PING_PONG,
        undo: "true",
        limit: LIMIT,
        set_up: &|| faulty.fixture.up(),
    };
    let mut steps = Vec::new();
    for (occasion, limit) in occasions {
        let sweep = Sweep {
            occasion: occasion.clone(),
            guest: "nic-0".to_owned(),
            first: 1,
            steps: *limit,
            allowed_splats: Vec::new(),
        };
        steps.extend(sweep.run(&faulty.control, &scripts, Step::print)?);
    }
    assert!(steps.len() >= occasions.len(), "{steps:?}");
    faulty.fixture.testbed().allow_splat("");
    compare_with_page(name, &steps)
}

#[test]
#[ignore = "long: a ping-pong for each of its commands"]
fn every_command_of_a_ping_pong_fails_once() -> Result<()> {
    sweep("ping-pong, commands", &[(Occasion::Command, 1000)])
}

#[test]
#[ignore = "long: a ping-pong for each of its completions"]
fn every_completion_of_a_ping_pong_fails_once() -> Result<()> {
    sweep("ping-pong, completions", &[(Occasion::Cqe, 1000)])
}

#[test]
#[ignore = "long: a ping-pong for each of its accesses to memory"]
fn every_access_of_a_ping_pong_fails_once() -> Result<()> {
    sweep(
        "ping-pong, memory",
        &PURPOSES.map(|(purpose, limit)| (Occasion::Dma(Some(purpose.to_owned())), limit)),
    )
}
