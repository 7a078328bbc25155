//! Behaviour of stock SMC and the guest driver under faults of the ISM device.

use std::env;

use guest_harness::Result;
use guest_harness::sweep::Occasion;

use crate::control::Control;
use crate::fault_sweep::{Range, sweep};
use crate::fixture::{Fixture, PORT, Setup};

#[test]
fn smc_meets_faults_of_its_device() -> Result<()> {
    let path = env::temp_dir().join(format!("ism-faults-{}", std::process::id()));
    let socket = path.display().to_string();
    let fixture = Setup::new("ism-faults", 2)
        .daemon_args(["--control-socket", &socket])
        .start()?;
    let control = Control::new(path);
    // Without a DMB, SMC falls back to TCP. First, as SMC keeps the buffers of ended connections.
    for fault in [
        "kind = \"request_refused\"\nrequest = \"alloc_for_peer\"\nstatus = \"no_spc\"",
        "kind = \"map_refused\"",
    ] {
        control.apply(&format!("[[fault]]\nguest = \"ism-1\"\n{fault}"));
        falls_back(&fixture)?;
        assert!(control.strikes() > 0, "{fault} never struck");
        control.apply("");
    }
    fixture.call(0, 1, "rtt --count 50")?;
    fixture.call(1, 0, "rtt --count 50")?;

    // Late and repeated bells, and late requests, change nothing but the time.
    for fault in [
        "kind = \"bell_late\"\ndelay = \"2ms\"",
        "kind = \"bell_spurious\"\ndelay = \"1ms\"",
        "kind = \"request_late\"\ndelay = \"20ms\"",
    ] {
        control.apply(&format!("[[fault]]\n{fault}"));
        fixture.call(0, 1, "bulk --bytes 2M --direction both --check hash")?;
        assert!(control.strikes() > 0, "{fault} never struck");
    }

    // A reader does not notice what a lost bell is about, until the next.
    control.apply("[[fault]]\nkind = \"bell_lost\"\ncount = 1");
    let address = fixture.guest(1).addr(0);
    let rtt = format!("/host/smc-tool rtt --count 50 --to {address}:{PORT} --expect-mode smcd --timeout 2");
    let output = fixture.guest(0).run(&rtt)?;
    assert!(output.stderr.ends_with("timed out\n"), "{output}");
    assert_eq!(control.strikes(), 1);
    control.apply("");
    for guest in fixture.testbed().guests() {
        fixture.ledger().open(guest)?;
    }
    fixture.call(0, 1, "rtt --count 50")?;

    // A guest vanishes with its driver unaware: the other's connection ends; the driver works once it is loaded anew.
    let held = fixture.run(0, 1, "hold")?;
    control.apply("[[fault]]\nguest = \"ism-1\"\nkind = \"vanish\"\non = \"now\"");
    let end = held.end(fixture.seconds(30))?;
    assert!(
        ["eof", "error"].contains(&end["end"].as_str().unwrap_or_default()),
        "{end}"
    );
    control.apply("");
    comes_back(&fixture)?;

    // A guest that does not hear of another's end connects to its next session all the same.
    control.apply("[[fault]]\nguest = \"ism-0\"\nkind = \"event_lost\"\nevent = \"peer_gone\"");
    comes_back(&fixture)?;
    assert_eq!(control.strikes(), 1);
    control.apply("");
    // None of it is a mistake of a driver, also of the one that has lost its DMBs unawares.
    for index in 0..2 {
        fixture.unload_driver(index)?;
    }
    assert_eq!(control.all_findings(), [] as [serde_json::Value; 0]);
    fixture.load_driver(1)?;
    // The first, third and fifth request of all that docs/fault-sweep.md has.
    let few = Range {
        steps: 3,
        stride: 2,
        ..Range::all(Occasion::Request)
    };
    let steps = sweep(&fixture, &control, &few)?;
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert!(steps.iter().all(|step| !step.outcome.is_bad()), "{steps:?}");
    fixture.load_driver(0)?;
    fixture.finish()
}

/// Loads the driver of the second guest anew, and connects in both directions.
fn comes_back(fixture: &Fixture) -> Result<()> {
    fixture.unload_driver(1)?;
    fixture.load_driver(1)?;
    fixture.call(0, 1, "rtt --count 50")?;
    fixture.call(1, 0, "rtt --count 50").map(drop)
}

/// A connection works, over TCP.
fn falls_back(fixture: &Fixture) -> Result<()> {
    let address = fixture.guest(1).addr(0);
    let rtt = format!("/host/smc-tool rtt --count 50 --to {address}:{PORT} --expect-mode tcp");
    fixture.guest(0).run(&rtt)?.check()?;
    for guest in fixture.testbed().guests() {
        fixture.ledger().open(guest)?;
    }
    Ok(())
}
