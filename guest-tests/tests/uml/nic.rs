//! The NIC over PCI over virtio.

use guest_harness::{Flow, NIC, NicOptions, NicSetup, Result, Testbed};

use crate::fixture::{WITHOUT_RDS, assert_nothing_left, finish, nic_testbed};

#[test]
fn the_nic_is_a_connectx_5_whose_drivers_have_no_complaint() -> Result<()> {
    let testbed = nic_testbed("uml-nic", 1)?;
    let a = testbed.guest(0);
    let device = a.run("lspci -n -s 00:00.0")?.check()?;
    assert!(device.text().ends_with("0200: 15b3:1017"), "{}", device.text());
    assert_eq!(a.read("/sys/class/infiniband/mlx5_0/ports/1/state")?, "4: ACTIVE");
    let driver = a.run(&format!("ethtool -i {NIC}"))?.check()?;
    assert!(driver.stdout.starts_with("driver: mlx5_core\n"), "{}", driver.stdout);
    finish(testbed)
}

#[test]
fn two_user_mode_guests_talk_over_the_switch() -> Result<()> {
    let testbed = nic_testbed("uml-talk", 2)?;
    let to_b = Flow::new(testbed.guest(0), testbed.guest(1), NicOptions::address(1));
    let to_a = Flow::new(testbed.guest(1), testbed.guest(0), NicOptions::address_v6(0));
    to_b.ping(50, 56)?;
    to_a.ping(50, 1400)?;
    to_b.compare_digests(4)?;
    to_a.compare_digests(4)?;
    for (flow, what) in [(to_b, "IPv4"), (to_a, "IPv6")] {
        let iperf = flow.iperf(2, "")?;
        eprintln!("{what}: TCP {:.0} Mbit/s", iperf.bits_per_second / 1e6);
        assert!(iperf.bytes > 1_000_000, "{iperf:?}");
    }
    testbed.each(|guest| guest.nic_check_log(&[]))?;
    testbed.finish()
}

#[test]
fn the_drivers_leave_and_come_back_twenty_times() -> Result<()> {
    let testbed = nic_testbed("uml-rebind", 2)?;
    // After the first reply, ping waits for the others only for the interval between requests or twice the longest
    // round trip.
    let ping = format!("ping -n -c 3 -i 0.3 -W 10 {}", NicOptions::address(1));
    for _ in 0..20 {
        testbed.each(|guest| guest.nic_unload())?;
        assert_nothing_left(&testbed)?;
        testbed.each(|guest| guest.nic_up(&NicSetup::default()))?;
        let answers = testbed.guest(0).run(&ping)?.check()?;
        assert!(answers.stdout.contains(" 3 received"), "{}", answers.stdout);
    }
    testbed.finish()
}

#[test]
fn a_pc_and_a_user_mode_guest_are_on_one_switch() -> Result<()> {
    let testbed = Testbed::builder("uml-pc")
        .guests(1)
        .uml_guests(1)
        .kernel_arg(WITHOUT_RDS)
        .nic(NicOptions::default())
        .start()?;
    assert!(!testbed.guest(0).is_uml() && testbed.guest(1).is_uml());
    testbed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    let to_user_mode = Flow::new(testbed.guest(0), testbed.guest(1), NicOptions::address(1));
    let to_pc = Flow::new(testbed.guest(1), testbed.guest(0), NicOptions::address_v6(0));
    to_user_mode.compare_digests(2)?;
    to_pc.compare_digests(2)?;
    finish(testbed)
}
