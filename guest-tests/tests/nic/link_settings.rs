//! Port, module and firmware by `ethtool` and `devlink`, without an error of the driver.

use guest_harness::{Guest, NIC, Result};

use crate::ethtool::ethtool;
use crate::fixture::Fixture;

/// Runs a command that the driver refuses, and returns its error.
fn refused(guest: &Guest, command: &str) -> Result<String> {
    let output = guest.run(command)?;
    assert!(output.clone().check().is_err(), "{command}: {output}");
    Ok(output.stderr)
}

#[track_caller]
fn shows(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// A backplane of four lanes without Wake-on-LAN, whose LED can be switched.
pub fn link(fixture: &Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    let link = ethtool(guest, "")?;
    shows(
        &link,
        &[
            "Supported ports: [ Backplane ]",
            "100000baseKR4/Full",
            "Port: Direct Attach Copper",
            "Supported FEC modes: None",
            "Supports Wake-on: d",
            "Speed: 100000Mb/s",
        ],
    );
    assert!(!link.contains("LR4"), "{link}");
    // Without netlink, the program succeeds all the same.
    guest.run(&format!("ethtool -s {NIC} wol g"))?;
    shows(&ethtool(guest, "")?, &["Wake-on: d"]);
    guest.run(&format!("ethtool -p {NIC} 1"))?.check()?;
    let counters = ethtool(guest, "-S")?;
    shows(
        &counters,
        &[
            "link_down_events_phy:",
            "rx_pcs_symbol_err_phy: 0",
            "rx_err_lane_3_phy: 0",
        ],
    );
    Ok(())
}

/// Sets FEC modes; the driver restarts the link each time.
pub fn fec(fixture: &Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    for (wanted, active) in [("off", "Off"), ("rs", "RS"), ("auto", "RS")] {
        ethtool(guest, &format!("--set-fec encoding {wanted}"))?;
        shows(
            &ethtool(guest, "--show-fec")?,
            &[&format!("Active FEC encoding: {active}")],
        );
    }
    // The port at 100 Gb/s has no Firecode; the driver sets it where there is.
    ethtool(guest, "--set-fec encoding baser")?;
    shows(&ethtool(guest, "--show-fec")?, &["Active FEC encoding: RS", "BaseR"]);
    ethtool(guest, "--set-fec encoding auto")?;
    fixture.flow(0, 1).ping(3, 56).map(drop)
}

pub fn module(fixture: &Fixture) -> Result<()> {
    let module = ethtool(fixture.guest(0), "-m")?;
    shows(
        &module,
        &["0x11 (QSFP28)", "No separable connector", "100G Base-CR4", "vhost-nic"],
    );
    Ok(())
}

pub fn pause(fixture: &Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    for (rx, tx) in [("on", "on"), ("off", "on"), ("off", "off")] {
        ethtool(guest, &format!("-A rx {rx} tx {tx}"))?;
        let pause = ethtool(guest, "-a")?.replace(['\t', ' '], "");
        shows(&pause, &[&format!("RX:{rx}\n"), &format!("TX:{tx}\n")]);
    }
    fixture.flow(0, 1).ping(3, 56).map(drop)
}

/// The firmware has the version that the driver printed when it probed, and nothing that it asks is refused.
pub fn devlink(fixture: &Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    let device = guest
        .run("devlink dev | sed -n '/^pci/{s/:$//;p;q}'")?
        .check()?
        .text()
        .to_owned();
    let run = |command: &str| -> Result<String> { Ok(guest.run(&format!("devlink {command}"))?.check()?.stdout) };
    let printed = guest
        .run("dmesg | sed -n 's/.*firmware version: //p' | head -n 1")?
        .check()?;
    let info = run(&format!("dev info {device}"))?;
    shows(
        &info,
        &[
            &format!("fw.version {}", printed.text()),
            "serial_number",
            "board.serial_number",
        ],
    );
    run(&format!("dev param show {device} name enable_roce"))?;
    run("dev param show")?;
    shows(
        &run(&format!("health diagnose {device} reporter vnic"))?,
        &["invalid_command: 0", "cq_overrun: 0"],
    );
    let reload = refused(guest, &format!("devlink dev reload {device} action fw_activate"))?;
    shows(&reload, &["requires reboot"]);
    let errors = guest.run("dmesg | grep mlx5 | grep -Ei 'fail|error|refus|syndrome|not supported' || true")?;
    assert_eq!(errors.check()?.stdout, "");
    Ok(())
}
