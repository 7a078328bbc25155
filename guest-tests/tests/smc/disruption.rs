//! Drivers unloaded and guests reset or killed under load: their connections end, others are undisturbed, and new ones
//! are SMC-D again. Connections of paused guests wait.

use std::thread;
use std::time::{Duration, Instant};

use guest_harness::Result;

use crate::fixture::{Fixture, Kernel, PORT, Setup};
use crate::scene::Scene;

#[test]
fn a_guest_goes_under_load() -> Result<()> {
    a_guest_goes(Setup::new("disruption", 3))
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_a_guest_goes_under_load() -> Result<()> {
    a_guest_goes(Setup::new("debug-disruption", 3).kernel(Kernel::Debug))
}

fn a_guest_goes(setup: Setup) -> Result<()> {
    let fixture = setup.start()?;
    let victim = fixture.guest(0);
    let rmmod = || {
        let took = fixture.unload_driver(0)?;
        eprintln!("rmmod itself took {took:.3?}");
        Ok(())
    };
    in_time(&fixture, "rmmod", rmmod, || fixture.load_driver(0))?;
    in_time(&fixture, "reset", || victim.reset(), || fixture.bring_up(0))?;
    let restart = || {
        victim.restart()?;
        fixture.bring_up(0)
    };
    in_time(&fixture, "kill", || victim.kill(), restart)?;
    fixture.finish()
}

/// Limit on the repetitions of an event: a busy host may delay guests, but not each time.
const ATTEMPTS: usize = 3;

/// Repeats an event on guest 0 until its connections end in time, restoring the guest each time.
fn in_time(
    fixture: &Fixture,
    what: &str,
    event: impl Fn() -> Result<()>,
    bring_back: impl Fn() -> Result<()>,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let in_time = Scene::set(fixture)?.play(fixture, what, &event)?;
        comes_back(fixture, &bring_back)?;
        if in_time {
            return Ok(());
        }
        eprintln!("{what}: late");
    }
    panic!("{what}: connections ended late each of {ATTEMPTS} times");
}

/// Restores guest 0, which must have a new GID, and connects in all directions.
fn comes_back(fixture: &Fixture, bring_back: impl Fn() -> Result<()>) -> Result<()> {
    let before = fixture.gid(0)?;
    let begin = Instant::now();
    bring_back()?;
    eprintln!("recovered in {:.1?}", begin.elapsed());
    assert_ne!(fixture.gid(0)?, before);
    for (from, to) in [(0, 1), (1, 0), (2, 0), (0, 2)] {
        fixture.call(from, to, "bulk --bytes 1M --direction both --check hash")?;
    }
    fixture.ledger().settle(fixture.testbed())
}

/// QEMU stops the device of a paused guest in the same way as for a reset.
#[test]
fn a_guest_is_paused_under_load() -> Result<()> {
    let fixture = Setup::new("paused", 2).start()?;
    fixture.call(0, 1, "rtt --count 50")?;
    let before = sessions(&fixture)?;
    let held = [fixture.run(0, 1, "hold")?, fixture.run(1, 0, "hold")?];
    for paused in [&[0][..], &[1], &[0, 1]] {
        let loads = [fixture.run(0, 1, "load")?, fixture.run(1, 0, "load")?];
        thread::sleep(Duration::from_millis(500));
        for &index in paused {
            fixture.guest(index).pause()?;
        }
        // Longer than the device waits for a reset.
        thread::sleep(Duration::from_secs(3));
        for &index in paused {
            fixture.guest(index).resume()?;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            fixture.call(from, to, "bulk --bytes 4M --direction both --check hash")?;
        }
        for load in loads {
            load.stop(fixture.seconds(20))?;
        }
    }
    assert!(held.iter().all(|held| !held.is_finished()), "{held:?}");
    assert_eq!(
        sessions(&fixture)?,
        before,
        "the drivers' sessions are the ones from before"
    );
    fixture.finish()
}

/// Reads the number of driver sessions of each guest so far.
fn sessions(fixture: &Fixture) -> Result<Vec<Option<u64>>> {
    let stats = fixture.daemon_stats()?;
    let guests = stats["guests"].as_array().expect("guests");
    Ok(guests.iter().map(|guest| guest["sessions"].as_u64()).collect())
}

/// Without a driver at one end connections fall back to TCP, and the checks of this suite detect it.
#[test]
fn falling_back_works_and_is_noticed() -> Result<()> {
    let fixture = Setup::new("fallback", 2).start()?;
    fixture.call(0, 1, "rtt --count 50")?;
    fixture.ledger().settle(fixture.testbed())?;
    fixture.unload_driver(1)?;

    let refused = fixture
        .call(0, 1, "rtt --count 50")
        .expect_err("a connection without a driver is SMC-D");
    assert!(refused.to_string().contains("exit status 3"), "{refused}");
    let address = fixture.guest(1).addr(0);
    let rtt = format!("/host/smc-tool rtt --count 50 --to {address}:{PORT} --expect-mode tcp");
    fixture.guest(0).run(&rtt)?.check()?;
    for guest in fixture.testbed().guests() {
        assert!(fixture.ledger().difference(guest)?.is_some(), "guest {}", guest.name());
        fixture.ledger().open(guest)?;
    }

    fixture.load_driver(1)?;
    fixture.call(0, 1, "rtt --count 50")?;
    fixture.call(1, 0, "rtt --count 50")?;
    fixture.finish()
}

#[test]
fn the_driver_comes_and_goes() -> Result<()> {
    rounds(Setup::new("rounds", 2), 10)
}

#[test]
#[ignore = "long: 50 rounds"]
fn the_driver_comes_and_goes_often() -> Result<()> {
    rounds(Setup::new("rounds-long", 2), 50)
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_the_driver_comes_and_goes() -> Result<()> {
    rounds(Setup::new("debug-rounds", 2).kernel(Kernel::Debug), 3)
}

/// Reloads the driver under load, alternately in the two guests, with new connections each time.
fn rounds(setup: Setup, count: usize) -> Result<()> {
    let fixture = setup.start()?;
    for round in 0..count {
        let (here, there) = (round % 2, 1 - round % 2);
        let load = fixture.run(here, there, "load")?;
        let hold = fixture.run(there, here, "hold")?;
        fixture.call(there, here, "connections --count 8 --bytes-each 64K")?;
        let took = fixture.unload_driver(here)?;
        for running in [load, hold] {
            let end = running.end(fixture.seconds(15))?;
            assert!(
                ["eof", "error"].contains(&end["end"].as_str().unwrap_or_default()),
                "{end}"
            );
        }
        fixture.load_driver(here)?;
        fixture.call(here, there, "rtt --count 50")?;
        fixture.call(there, here, "rtt --count 50")?;
        eprintln!("round {round}: rmmod took {took:.3?}");
    }
    fixture.finish()
}
