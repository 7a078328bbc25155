//! Connections around a victim guest, and the time they take to end after an event.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use guest_harness::Result;
use serde_json::Value;

use crate::fixture::{Fixture, Kernel};
use crate::workload::Running;

/// Limit on the time until a connection to a vanished peer ends.
const BOUND: Duration = Duration::from_secs(1);

/// Same limit with the debug kernel, which is several times slower.
const DEBUG_BOUND: Duration = Duration::from_secs(5);

/// Load between every pair of three guests, and blocked readers. Guest 0 is the victim.
#[derive(Debug)]
pub struct Scene {
    /// Survivors' connections to the victim.
    outward: Vec<Running>,
    /// The victim's connections to survivors' servers.
    inward: Vec<Running>,
    /// A connection that the event must not affect.
    bystander: Running,
    /// Connections at each guest's server that had ended before.
    ended: [usize; 3],
}

const VICTIM: usize = 0;
const SURVIVORS: [usize; 2] = [1, 2];

impl Scene {
    pub fn set(fixture: &Fixture) -> Result<Self> {
        let run = |from, to, workload| fixture.run(from, to, workload);
        let ended = [VICTIM, 1, 2].map(|index| fixture.server_ends(index).len());
        Ok(Self {
            outward: vec![
                run(1, VICTIM, "hold")?,
                run(2, VICTIM, "hold")?,
                run(1, VICTIM, "load")?,
                run(2, VICTIM, "load")?,
            ],
            inward: vec![
                run(VICTIM, 2, "hold")?,
                run(VICTIM, 1, "hold")?,
                run(VICTIM, 1, "load")?,
            ],
            bystander: run(1, 2, "load")?,
            ended,
        })
    }

    /// Triggers the event. Asserts that exactly the connections with the victim end at the survivors, and at the victim
    /// unless it rebooted. Returns whether all ended in time.
    pub fn play(self, fixture: &Fixture, what: &str, event: impl FnOnce() -> Result<()>) -> Result<bool> {
        let bound = match fixture.kernel() {
            Kernel::Normal => BOUND,
            Kernel::Debug => DEBUG_BOUND,
        };
        // Let the traffic run for a moment.
        thread::sleep(Duration::from_millis(500));
        let boot = fixture.guest(VICTIM).hello()?.boot_id;
        let mut begin = [0.0; 3];
        for index in SURVIVORS {
            begin[index] = clock(fixture, index)?;
        }
        let event_began = Instant::now();
        event()?;
        // An unload ends the connections while it runs.
        let bound = bound + event_began.elapsed();

        let mut in_time = true;
        let mut note = |index: usize, end: &Value, name: String| {
            let seconds = end["monotonic"].as_f64().expect("a time") - begin[index];
            eprintln!("{what}: {name} ended after {seconds:.3} s");
            in_time &= seconds <= bound.as_secs_f64();
        };
        for running in self.outward {
            let name = format!("{} of guest {}", running.workload, running.from);
            let from = running.from;
            let end = running.end(fixture.seconds(15))?;
            assert!(
                ["eof", "error"].contains(&end["end"].as_str().unwrap_or_default()),
                "{end}"
            );
            note(
                from,
                &end,
                format!("{name} ({})", end["end"].as_str().unwrap_or_default()),
            );
        }
        for (index, expected) in [(1, 2), (2, 1)] {
            for end in server_ends(fixture, index, self.ended[index], expected)? {
                note(index, &end, format!("{} served by guest {index}", end["workload"]));
            }
        }

        let same_boot = fixture.guest(VICTIM).is_running() && fixture.guest(VICTIM).hello()?.boot_id == boot;
        for running in self.inward {
            if same_boot {
                let end = running.end(fixture.seconds(15))?;
                assert!(
                    ["eof", "error"].contains(&end["end"].as_str().unwrap_or_default()),
                    "{end}"
                );
            }
        }
        self.bystander.stop(fixture.seconds(20))?;
        Ok(in_time)
    }
}

/// Reads the guest's CLOCK_MONOTONIC, with a resolution of 10 ms.
fn clock(fixture: &Fixture, index: usize) -> Result<f64> {
    let uptime = fixture.guest(index).read("/proc/uptime")?;
    let seconds = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok());
    Ok(seconds.expect("seconds in /proc/uptime"))
}

/// Waits for the victim's connections to end at the server of a survivor.
fn server_ends(fixture: &Fixture, index: usize, before: usize, expected: usize) -> Result<Vec<Value>> {
    let victim = fixture.guest(VICTIM).addr(index);
    let deadline = Instant::now() + fixture.seconds(15);
    loop {
        let mut ends = fixture.server_ends(index);
        ends.drain(..before);
        ends.retain(|end| {
            let peer = end["peer"].as_str().and_then(|peer| peer.parse::<SocketAddr>().ok());
            peer.is_some_and(|peer| peer.ip() == victim)
        });
        if ends.len() >= expected {
            assert_eq!(ends.len(), expected, "{ends:?}");
            return Ok(ends);
        }
        assert!(
            Instant::now() < deadline,
            "the server of guest {index} saw {} of {expected} connections end",
            ends.len()
        );
        thread::sleep(Duration::from_millis(50));
    }
}
