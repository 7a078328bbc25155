//! The operator's commands, as the stock driver sees them.

use std::env;
use std::path::Path;
use std::process::Command;

use guest_harness::{Guest, NIC, NicOptions, Result};

use crate::fixture::{Setup, step};
use crate::flr::{COMPLAINTS, LIMIT};

/// Messages of the driver about a function that does not come back before it is removed.
const COMPLAINTS_AT_REMOVAL: &[&str] = &["PCI slot is unavailable", "NIC IFC still 7", "stop waiting for PCI"];

/// Runs a command of the control socket.
#[track_caller]
fn ctl(control: &Path, arguments: &[&str]) {
    let mut command = Command::new(NicOptions::program().expect("the daemon is built"));
    command.arg("ctl").arg("--control-socket").arg(control).args(arguments);
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Waits until a shell condition holds in a guest, for 20 seconds.
fn eventually(guest: &Guest, condition: &str) -> Result<()> {
    let script = format!("for i in $(seq 200); do {condition} && exit 0; sleep 0.1; done; exit 1");
    guest.run(&script)?.check().map(drop)
}

#[test]
fn the_driver_sees_the_cable_and_the_speed_that_the_operator_sets() -> Result<()> {
    let control = env::temp_dir().join(format!("nic-control-{}", std::process::id()));
    let options = NicOptions::default().args(["--control-socket".to_owned(), control.display().to_string()]);
    // That kernel answers ethtool by netlink, which has the reason why there is no link.
    let fixture = Setup::new("nic-control", 2)
        .stock_kernel("7.x")
        .options(options)
        .start()?;
    let guest = fixture.guest(0);
    step("cable", || {
        for (state, carrier, shown) in [("out", 0, "no (No cable)"), ("in", 1, "yes")] {
            ctl(&control, &["cable", "nic-0", state]);
            eventually(guest, &format!("[ $(cat /sys/class/net/{NIC}/carrier) = {carrier} ]"))?;
            let link = guest.run(&format!("ethtool {NIC}"))?.check()?.stdout;
            assert!(link.contains(&format!("Link detected: {shown}\n")), "{link}");
        }
        fixture.flow(0, 1).ping(3, 56).map(drop)
    })?;
    step("speed", || {
        for gbps in ["10", "25", "40", "50", "100"] {
            ctl(&control, &["speed", "nic-0", gbps]);
            eventually(guest, &format!("ethtool {NIC} | grep -q 'Speed: {gbps}000Mb/s'"))?;
            // The rate that ibstat shows.
            let rate = "/sys/class/infiniband/mlx5_0/ports/1/rate";
            eventually(guest, &format!("grep -q '^{gbps} Gb/sec' {rate}"))?;
        }
        fixture.flow(0, 1).ping(3, 56).map(drop)
    })?;
    step("reset of the function", || {
        let device = format!("basename $(readlink -f /sys/class/net/{NIC}/device)");
        let device = guest.run(&device)?.check()?.text().to_owned();
        guest.run("dmesg -C")?.check()?;
        ctl(&control, &["flr", "nic-0"]);
        let noticed = "until dmesg | grep -q 'Fatal error 1 detected'; do sleep 0.2; done";
        guest.shell(noticed).timeout(LIMIT).run()?.check()?;
        // The recipe of docs/control.md.
        let remove = format!("echo 1 > /sys/bus/pci/devices/{device}/remove && echo 1 > /sys/bus/pci/rescan");
        guest.shell(&remove).timeout(LIMIT).run()?.check()?;
        guest.nic_load(true)?;
        guest.nic_configure(1500)?;
        fixture.flow(0, 1).ping(3, 56)?;
        guest.nic_check_log(&[COMPLAINTS, COMPLAINTS_AT_REMOVAL].concat())?;
        guest.run("dmesg -C")?.check().map(drop)
    })?;
    fixture.finish()
}
