//! The first, second, third … request and map of a driver that is loaded and a connection over SMC-D fails in turn:
//! what driver and SMC make of it, step by step. `docs/fault-sweep.md` has the results.

use std::env;
use std::time::Duration;

use guest_harness::Result;
use guest_harness::sweep::{Occasion, Scripts, Step, Sweep, compare_with_page};

use crate::control::Control;
use crate::fixture::{Fixture, PORT, Setup};

/// Limit on a run.
const LIMIT: Duration = Duration::from_secs(20);

const UNDO: &str = "! grep -q ^virtio_ism /proc/modules || rmmod virtio_ism";

/// Occasions that fail: every `stride`th, at most `steps`.
pub struct Range {
    pub occasion: Occasion,
    pub steps: u64,
    pub stride: u64,
}

impl Range {
    pub fn all(occasion: Occasion) -> Self {
        Self {
            occasion,
            steps: 1000,
            stride: 1,
        }
    }
}

/// Sweeps the workload of the first guest, whose driver is not loaded before or after.
pub fn sweep(fixture: &Fixture, control: &Control, range: &Range) -> Result<Vec<Step>> {
    let address = fixture.guest(1).addr(0);
    let run = format!(
        "insmod /host/virtio_ism.ko || exit 1; \
         /host/smc-tool bulk --bytes 64K --direction both --check hash --expect-mode smcd --timeout 5 \
         --to {address}:{PORT}"
    );
    let set_up = || {
        fixture.bring_up(0)?;
        fixture.unload_driver(0).map(drop)
    };
    let scripts = Scripts {
        guest: fixture.guest(0),
        run: &run,
        undo: UNDO,
        limit: LIMIT,
        set_up: &set_up,
    };
    let sweep = Sweep {
        occasion: range.occasion.clone(),
        guest: "ism-0".to_owned(),
        first: 1,
        steps: range.steps,
        stride: range.stride,
        background: String::new(),
        allowed_splats: Vec::new(),
    };
    let steps = sweep.run(control.daemon(), &scripts, Step::print)?;
    for guest in fixture.testbed().guests() {
        fixture.ledger().open(guest)?;
    }
    Ok(steps)
}

#[test]
#[ignore = "long: loads the driver four times for each of its requests and maps"]
fn every_request_and_map_of_a_connection_fails_once() -> Result<()> {
    let path = env::temp_dir().join(format!("ism-sweep-{}", std::process::id()));
    let socket = path.display().to_string();
    let fixture = Setup::new("ism-fault-sweep", 2)
        .daemon_args(["--control-socket", &socket])
        .start()?;
    let control = Control::new(path);
    fixture.unload_driver(0)?;
    for (name, occasion) in [
        ("SMC-D, requests", Occasion::Request),
        ("SMC-D, maps", Occasion::Map),
        ("SMC-D, vanishing", Occasion::Vanish),
    ] {
        let steps = sweep(&fixture, &control, &Range::all(occasion))?;
        assert!(!steps.is_empty(), "{name}");
        compare_with_page(name, &steps, false)?;
    }
    // A refusal by a fault is nobody's mistake. What follows from one may look like one: an attachment that is left.
    let mut errors = control.all_findings();
    errors.retain(|finding| finding["severity"] == "error");
    assert_eq!(errors, [] as [serde_json::Value; 0]);
    fixture.load_driver(0)?;
    fixture.finish()
}
