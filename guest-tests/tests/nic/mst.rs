//! The vendor's tools, which ask the firmware, as there is no flash.

use std::collections::HashMap;

use guest_harness::{Guest, NIC, Result};

use crate::fixture::{Setup, step};

/// Words of the tools in color.
const COLORS: [&str; 3] = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[0m"];

#[test]
#[ignore = "long: needs a root file system with mstflint"]
fn the_vendors_tools_show_the_adapter() -> Result<()> {
    let fixture = Setup::new("nic-mst", 1)
        .packages("mstflint+pciutils")
        .ethernet_only()
        .start()?;
    let guest = fixture.guest(0);
    let link = format!("basename $(readlink /sys/class/net/{NIC}/device)");
    let function = guest.run(&link)?.check()?.text().to_owned();
    let address = guest
        .run(&format!("cat /sys/class/net/{NIC}/address"))?
        .check()?
        .text()
        .replace(':', "");
    step("firmware", || firmware(guest, &function, &address))?;
    step("configuration", || configuration(guest, &function))?;
    step("link", || link_and_module(guest, &function, &address))?;
    step("register", || register(guest, &function))?;
    fixture.finish()
}

/// Returns what a tool prints, without colors.
fn tool(guest: &Guest, command: &str) -> Result<String> {
    let output = guest.run(command)?.check()?;
    Ok(COLORS.iter().fold(output.stdout, |text, color| text.replace(color, "")))
}

/// Returns the values of the lines with a name and a value.
fn values(text: &str) -> HashMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim(), value.trim())).collect()
}

/// Asserts that the values have these, of which some are the start of a longer one.
fn assert_has(text: &str, expected: &[(&str, &str)]) {
    let values = values(text);
    for (name, start) in expected {
        assert!(
            values.get(name).is_some_and(|value| value.starts_with(start)),
            "{name} is not {start} in {text}"
        );
    }
}

fn firmware(guest: &Guest, function: &str, address: &str) -> Result<()> {
    let shown = tool(guest, &format!("mstflint -d {function} query full"))?;
    assert_has(
        &shown,
        &[
            ("Image type", "FS4"),
            ("FW Version", "16.35.4030"),
            ("Part Number", "VHOST-NIC"),
            ("Description", "UID"),
            ("Base MAC", address),
            ("PSID", "VHOST_NIC_000001"),
            ("Default Update Method", "fw_ctrl"),
        ],
    );
    let image = guest.run(&format!("mstflint -d {function} verify"))?;
    assert!(image.clone().check().is_err(), "{image}");
    Ok(())
}

/// A set value is the one of the next boot.
fn configuration(guest: &Guest, function: &str) -> Result<()> {
    let query = format!("mstconfig -d {function} -e query CQE_COMPRESSION");
    let values = || -> Result<Vec<String>> {
        let shown = tool(guest, &query)?;
        let line = shown.lines().find(|line| line.contains(" CQE_COMPRESSION "));
        let words = line.unwrap_or_else(|| panic!("{shown}")).split_whitespace();
        Ok(words.filter(|word| word.ends_with(')')).map(str::to_owned).collect())
    };
    assert_eq!(values()?, ["BALANCED(0)", "BALANCED(0)", "BALANCED(0)"]);
    tool(guest, &format!("mstconfig -y -d {function} set CQE_COMPRESSION=1"))?;
    assert_eq!(values()?, ["BALANCED(0)", "BALANCED(0)", "AGGRESSIVE(1)"]);
    Ok(())
}

fn link_and_module(guest: &Guest, function: &str, address: &str) -> Result<()> {
    let up = tool(guest, &format!("mstlink -d {function} -m -c"))?;
    let serial = address.to_uppercase();
    assert_has(
        &up,
        &[
            ("State", "Active"),
            ("Physical state", "LinkUp"),
            ("Speed", "100GbE"),
            ("Width", "4x"),
            ("FEC", "Standard RS-FEC - RS(528,514)"),
            ("Auto Negotiation", "ON"),
            ("Enabled Link Speed", "0x90400092 (100G,50G,40G,25G,10G,1G)"),
            ("Status Opcode", "0"),
            ("Recommendation", "No issue was observed"),
            ("Identifier", "QSFP28"),
            ("Cable Type", "Passive copper cable"),
            ("Vendor Serial Number", &serial),
            ("Raw Physical Errors Per Lane", "0,0,0,0"),
        ],
    );
    guest.run(&format!("ip link set {NIC} down"))?.check()?;
    // It reports an error too: there is no PRBS.
    let down = guest.run(&format!("mstlink -d {function}"))?.stdout;
    let down = COLORS.iter().fold(down, |text, color| text.replace(color, ""));
    assert_has(
        &down,
        &[
            ("State", "Disable"),
            ("Speed", "N/A"),
            ("Status Opcode", "1"),
            ("Recommendation", "The port is closed by command"),
        ],
    );
    guest.run(&format!("ip link set {NIC} up"))?.check().map(drop)
}

fn register(guest: &Guest, function: &str) -> Result<()> {
    let shown = tool(guest, &format!("mstreg -d {function} --reg_name MGIR --get"))?;
    for (field, value) in [
        ("device_id", "0x00001017"),
        ("num_ports", "0x00000001"),
        ("extended_sub_minor", "0x00000fbe"),
    ] {
        let found = shown.lines().find(|line| {
            let mut words = line.split('|').map(str::trim);
            words.next() == Some(field) && words.next() == Some(value)
        });
        assert!(found.is_some(), "{field} is not {value} in {shown}");
    }
    Ok(())
}
