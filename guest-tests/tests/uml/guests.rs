//! The harness on User Mode Linux guests.

use std::time::{Duration, Instant};

use guest_harness::{Error, Exit, Result, Testbed, noise};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_user_mode_guest_does_as_it_is_told() -> Result<()> {
    let testbed = Testbed::builder("uml").guests(0).uml_guests(1).start()?;
    let a = testbed.guest(0);

    let out = a.run("echo out; echo err >&2; exit 3")?;
    assert_eq!(out.status, Exit::Code(3));
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(a.run("hostname")?.check()?.text(), "a");
    assert!(a.hello()?.release.ends_with("-uml"), "{}", a.hello()?.release);

    // Both directions, with more data than any buffer on the path holds.
    let content = noise(1_000_000);
    a.put_bytes(&content, "/tmp/noise", 0o600)?;
    assert!(a.get("/tmp/noise")? == content);
    let sum = a.command(["sha1sum"]).stdin(content).run()?.check()?;
    assert_eq!(sum.text(), a.run("sha1sum - </tmp/noise")?.text());

    let job = a.spawn("sleep 1000")?;
    job.pid(SOON)?;
    job.kill(15);
    assert_eq!(job.wait(SOON)?.status, Exit::Signal(15));
    assert!(matches!(a.qmp(), Err(Error::Unsupported(_))));
    testbed.finish()
}

#[test]
fn a_user_mode_guest_stops_goes_on_dies_and_comes_back() -> Result<()> {
    let testbed = Testbed::builder("uml-life").guests(0).uml_guests(2).start()?;
    let (a, b) = (testbed.guest(0), testbed.guest(1));
    let boot = a.hello()?.boot_id;

    b.pause()?;
    let error = b.shell("true").timeout(Duration::from_millis(500)).run();
    assert!(error.is_err(), "a stopped guest does nothing");
    b.resume()?;
    b.run("true")?.check()?;

    a.kill()?;
    assert!(!a.is_running());
    let begin = Instant::now();
    a.restart()?;
    assert!(begin.elapsed() < SOON);
    assert_ne!(a.hello()?.boot_id, boot);
    b.run("true")?.check()?;
    testbed.finish()
}
