//! Loading, unloading and reloading the drivers without warnings.

use std::time::Duration;

use guest_harness::{NIC, NicOptions, Result};

use crate::fixture::{Fixture, Setup, step};

const BOOT: Duration = Duration::from_secs(90);

#[test]
fn the_driver_loads_and_unloads_without_a_complaint() -> Result<()> {
    let fixture = Setup::new("nic-probe", 1).start()?;
    identity(&fixture)?;
    cycles(&fixture, 3)?;
    reboots(&fixture, 1)?;
    new_qemu(&fixture)?;
    fixture.finish()
}

#[test]
#[ignore = "long: 20 loads, 5 reboots"]
fn the_driver_loads_and_unloads_many_times() -> Result<()> {
    let fixture = Setup::new("nic-probe-long", 1).start()?;
    cycles(&fixture, 20)?;
    reboots(&fixture, 5)?;
    new_qemu(&fixture)?;
    fixture.finish()
}

#[test]
fn a_nic_behind_a_root_port_works() -> Result<()> {
    let options = NicOptions::default().root_port();
    let fixture = Setup::new("nic-root-port", 2).options(options).start()?;
    fixture.flow(0, 1).ping(5, 56)?;
    reboots(&fixture, 1)?;
    fixture.flow(0, 1).ping(5, 56)?;
    fixture.finish()
}

/// Every device id of the daemon; the first is the default.
const IDS: [(&str, &str); 5] = [
    ("connectx-5", "0x1017"),
    ("connectx-5ex", "0x1019"),
    ("connectx-6dx", "0x101d"),
    ("connectx-7", "0x1021"),
    ("vf", "0x101e"),
];

#[test]
fn every_id_is_driven() -> Result<()> {
    for (id, device) in IDS {
        step(id, || {
            let options = NicOptions::default().id(id);
            let fixture = Setup::new("nic-id", 1).options(options).start()?;
            let found = fixture.guest(0).read(&format!("/sys/class/net/{NIC}/device/device"))?;
            assert_eq!(found, device, "{id}");
            fixture.finish()
        })?;
    }
    Ok(())
}

/// Checks how the driver identifies the device.
fn identity(fixture: &Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    let info = guest.run(&format!("ethtool -i {NIC}; ethtool {NIC}"))?.check()?;
    assert!(info.stdout.contains("driver: mlx5_core"), "{info}");
    assert!(info.stdout.contains("Link detected: yes"), "{info}");
    let address = guest.read(&format!("/sys/class/net/{NIC}/address"))?;
    assert_eq!(address, NicOptions::mac(0));
    let permanent = guest.run(&format!("ethtool -P {NIC}"))?.check()?;
    assert!(permanent.text().ends_with(&NicOptions::mac(0)), "{permanent}");
    Ok(())
}

/// Takes the interface down and up, unloads and reloads the drivers.
fn cycles(fixture: &Fixture, count: usize) -> Result<()> {
    let guest = fixture.guest(0);
    for cycle in 1..=count {
        step(&format!("cycle {cycle}"), || {
            guest
                .run(&format!("ip link set {NIC} down && ip link set {NIC} up"))?
                .check()?;
            guest.nic_unload()?;
            fixture.assert_nothing_left(0)?;
            fixture.guest_up(guest)
        })?;
    }
    Ok(())
}

/// Reboots the guest with the drivers loaded: odd times by a machine reset, even times by the guest itself.
fn reboots(fixture: &Fixture, count: usize) -> Result<()> {
    let guest = fixture.guest(0);
    for reboot in 1..=count {
        step(&format!("reboot {reboot}"), || {
            if reboot % 2 == 0 {
                let before = guest.hello()?.boot_id;
                // Like `reboot`: calls the drivers' shutdown functions and ends the connection.
                let job = guest.spawn("echo 1 > /proc/sys/kernel/sysrq; exec busybox reboot -f")?;
                guest.control()?.wait_boot(Some(&before), BOOT)?;
                drop(job);
            } else {
                guest.reset()?;
            }
            fixture.guest_up(guest)
        })?;
    }
    Ok(())
}

/// Kills QEMU and starts another on the same socket.
fn new_qemu(fixture: &Fixture) -> Result<()> {
    step("a new QEMU", || {
        fixture.guest(0).restart()?;
        fixture.guest_up(fixture.guest(0))
    })
}
