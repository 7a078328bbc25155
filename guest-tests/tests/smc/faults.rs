//! Behaviour of stock SMC and the guest driver under faults of the ISM device.

use std::env;

use guest_harness::Result;

use crate::control::Control;
use crate::fixture::{Fixture, PORT, Setup};

#[test]
fn smc_meets_faults_of_its_device() -> Result<()> {
    let path = env::temp_dir().join(format!("ism-faults-{}", std::process::id()));
    let socket = path.display().to_string();
    let fixture = Setup::new("ism-faults", 2)
        .daemon_args(["--control-socket", &socket])
        .start()?;
    let (control, logs) = (Control(path), fixture.testbed().logs().to_owned());
    // Without a DMB, SMC falls back to TCP. First, as SMC keeps the buffers of ended connections.
    control.apply(
        &logs,
        "[[fault]]\nguest = \"ism-1\"\nkind = \"request_refused\"\nrequest = \"alloc_for_peer\"\nstatus = \"no_spc\"",
    );
    falls_back(&fixture)?;
    assert!(control.strikes() > 0);
    control.apply(&logs, "");
    fixture.call(0, 1, "rtt --count 50")?;
    fixture.call(1, 0, "rtt --count 50")?;

    // Late and repeated bells, and late requests, change nothing but the time.
    for fault in [
        "kind = \"bell_late\"\ndelay = \"2ms\"",
        "kind = \"bell_spurious\"\ndelay = \"1ms\"",
        "kind = \"request_late\"\ndelay = \"20ms\"",
    ] {
        control.apply(&logs, &format!("[[fault]]\n{fault}"));
        fixture.call(0, 1, "bulk --bytes 2M --direction both --check hash")?;
        assert!(control.strikes() > 0, "{fault} never struck");
    }
    fixture.finish()
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
