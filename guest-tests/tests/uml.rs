//! User Mode Linux guests: the harness on them, and the NIC over PCI over virtio.

use std::time::{Duration, Instant};

use guest_tests::{Error, Exit, Flow, NIC, NicOptions, NicSetup, Result, Testbed};

const SOON: Duration = Duration::from_secs(10);

/// Bytes that no compression or repetition can fake.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn a_user_mode_guest_does_as_it_is_told() -> Result<()> {
    let bed = Testbed::builder("uml").guests(0).uml_guests(1).start()?;
    let a = bed.guest(0);

    let out = a.run("echo out; echo err >&2; exit 3")?;
    assert_eq!(out.status, Exit::Code(3));
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(a.run("hostname")?.check()?.text(), "a");
    assert!(a.hello()?.release.ends_with("-uml"), "{}", a.hello()?.release);

    // Both ways, byte by byte, and more than any buffer on the way holds.
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
    bed.finish()
}

#[test]
fn a_user_mode_guest_stops_goes_on_dies_and_comes_back() -> Result<()> {
    let bed = Testbed::builder("uml-life").guests(0).uml_guests(2).start()?;
    let (a, b) = (bed.guest(0), bed.guest(1));
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
    bed.finish()
}

fn nic_bed(name: &str, guests: usize) -> Result<Testbed> {
    let bed = Testbed::builder(name)
        .guests(0)
        .uml_guests(guests)
        .nic(NicOptions::default())
        .start()?;
    bed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    Ok(bed)
}

/// Asserts that the daemon holds nothing for any guest.
fn assert_nothing_left(bed: &Testbed) -> Result<()> {
    let stats = bed.daemon().stats()?;
    for guest in stats["guests"].as_array().expect("the daemon's guests") {
        for (kind, count) in guest["objects"].as_object().expect("objects by kind") {
            assert_eq!(*count, 0, "{kind} left behind in {guest:#}");
        }
        assert_eq!(guest["pages"], 0, "pages left behind in {guest:#}");
    }
    Ok(())
}

#[test]
fn the_nic_is_a_connectx_5_whose_drivers_have_no_complaint() -> Result<()> {
    let bed = nic_bed("uml-nic", 1)?;
    let a = bed.guest(0);
    let device = a.run("lspci -n -s 00:00.0")?.check()?;
    assert!(device.text().ends_with("0200: 15b3:1017"), "{}", device.text());
    assert_eq!(a.read("/sys/class/infiniband/mlx5_0/ports/1/state")?, "4: ACTIVE");
    let driver = a.run(&format!("ethtool -i {NIC}"))?.check()?;
    assert!(driver.stdout.starts_with("driver: mlx5_core\n"), "{}", driver.stdout);
    a.nic_unload()?;
    a.nic_check_log(&[])?;
    assert_nothing_left(&bed)?;
    bed.finish()
}

#[test]
fn two_user_mode_guests_talk_over_the_switch() -> Result<()> {
    let bed = nic_bed("uml-talk", 2)?;
    let to_b = Flow::new(bed.guest(0), bed.guest(1), NicOptions::address(1));
    let to_a = Flow::new(bed.guest(1), bed.guest(0), NicOptions::address_v6(0));
    to_b.ping(50, 56)?;
    to_a.ping(50, 1400)?;
    to_b.compare_digests(4)?;
    to_a.compare_digests(4)?;
    for (flow, what) in [(to_b, "IPv4"), (to_a, "IPv6")] {
        let iperf = flow.iperf(2, "")?;
        eprintln!("{what}: TCP {:.0} Mbit/s", iperf.bits_per_second / 1e6);
        assert!(iperf.bytes > 1_000_000, "{iperf:?}");
    }
    bed.each(|guest| guest.nic_check_log(&[]))?;
    bed.finish()
}

#[test]
fn the_drivers_leave_and_come_back_twenty_times() -> Result<()> {
    let bed = nic_bed("uml-rebind", 2)?;
    // Once it has had an answer, ping waits for the others only as long as between two requests, or twice the longest so far.
    let ping = format!("ping -n -c 3 -i 0.3 -W 10 {}", NicOptions::address(1));
    for _ in 0..20 {
        bed.each(|guest| guest.nic_unload())?;
        assert_nothing_left(&bed)?;
        bed.each(|guest| guest.nic_up(&NicSetup::default()))?;
        let answers = bed.guest(0).run(&ping)?.check()?;
        assert!(answers.stdout.contains(" 3 received"), "{}", answers.stdout);
    }
    bed.finish()
}

#[test]
fn a_pc_and_a_user_mode_guest_are_on_one_switch() -> Result<()> {
    let bed = Testbed::builder("uml-pc")
        .guests(1)
        .uml_guests(1)
        .nic(NicOptions::default())
        .start()?;
    assert!(!bed.guest(0).is_uml() && bed.guest(1).is_uml());
    bed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    let to_user_mode = Flow::new(bed.guest(0), bed.guest(1), NicOptions::address(1));
    let to_pc = Flow::new(bed.guest(1), bed.guest(0), NicOptions::address_v6(0));
    to_user_mode.compare_digests(2)?;
    to_pc.compare_digests(2)?;
    bed.each(|guest| guest.nic_unload())?;
    bed.each(|guest| guest.nic_check_log(&[]))?;
    assert_nothing_left(&bed)?;
    bed.finish()
}
