//! A function-level reset behind the driver's back, by root of the guest.

use std::time::Duration;

use guest_harness::{NIC, Result};

use crate::fixture::{Setup, step};

/// Time for the driver's health check, which polls every two seconds, and for its recovery.
pub const LIMIT: Duration = Duration::from_secs(120);
const PINGPONG: &str = "ibv_rc_pingpong -d mlx5_0 -g 3 -c";
/// Messages of the driver about a reset that it did not ask for.
pub const COMPLAINTS: &[&str] = &[
    "Fatal error",
    "fatal health",
    "health poll",
    "health recovery",
    "device in error state",
    "Driver is in error state",
    "Device state",
    "Skipping wait for vf pages stage",
    "mlx5_error_sw_reset",
    ": resetting",
    ": reset done",
    "interface is down, NOP",
    "starting teardown",
    "command interface",
    "handling bad device here",
    "start, error sensors",
];

#[test]
fn the_driver_recovers_from_a_reset() -> Result<()> {
    let fixture = Setup::new("nic-flr", 2).start()?;
    fixture.flow(0, 1).ping(3, 56)?;
    let guest = fixture.guest(0);
    let device = guest
        .run(&format!("basename $(readlink -f /sys/class/net/{NIC}/device)"))?
        .check()?;
    let device = device.text().trim();
    let reset = format!("echo 1 > /sys/bus/pci/devices/{device}/reset");
    let is_logged = |text: &str| {
        let script = format!("until dmesg | grep -q '{text}'; do sleep 0.2; done");
        guest.shell(&script).timeout(LIMIT).run()?.check().map(drop)
    };
    let works = || {
        is_logged("health recovery succeeded")?;
        // The recovery makes the interface anew.
        guest.nic_load(true)?;
        guest.nic_configure(1500)?;
        fixture.flow(0, 1).ping(3, 56)?;
        fixture.flow(0, 1).converse_alike(PINGPONG, LIMIT).map(drop)
    };
    step("recovery by the health check", || {
        guest.run(&reset)?.check()?;
        works()
    })?;
    // The driver recovers by itself once a minute (`MLX5_FW_REPORTER_PF_GRACEFUL_PERIOD`, core/health.c).
    step("recovery on request", || {
        guest.run("dmesg -C")?.check()?;
        guest.run(&reset)?.check()?;
        is_logged("Driver is in error state. Unloading")?;
        let recover = format!("devlink health recover pci/{device} reporter fw_fatal");
        guest.shell(&recover).timeout(LIMIT).run()?.check()?;
        works()
    })?;
    guest.nic_check_log(COMPLAINTS)?;
    guest.run("dmesg -C")?.check()?;
    // Nothing is left that an unload would wait for.
    guest.nic_unload()?;
    fixture.assert_nothing_left(0)?;
    fixture.guest_up(guest)?;
    fixture.flow(0, 1).ping(3, 56)?;
    fixture.finish()
}
