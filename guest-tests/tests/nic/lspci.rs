//! The PCI function in `lspci`, integrated in the root complex and behind a root port.

use guest_harness::{Guest, NIC, NicOptions, Result};

use crate::fixture::Setup;
use crate::golden;

#[test]
fn lspci_shows_the_function_as_ever() -> Result<()> {
    for (name, options) in [
        ("lspci-root-complex.txt", NicOptions::default()),
        ("lspci-root-port.txt", NicOptions::default().root_port()),
    ] {
        let fixture = Setup::new("nic-lspci", 1).options(options).ethernet_only().start()?;
        golden::assert_same(name, &lspci(fixture.guest(0))?);
        fixture.finish()?;
    }
    Ok(())
}

/// Returns the output of `lspci` for the NIC, with assigned resources replaced.
fn lspci(guest: &Guest) -> Result<String> {
    let device = guest.run(&format!("basename $(readlink /sys/class/net/{NIC}/device)"))?;
    let device = device.check()?.text().to_owned();
    let shown = guest.run(&format!("lspci -nn -vvv -s {device}"))?.check()?;
    let mut text = String::new();
    for line in shown.stdout.trim_end().lines() {
        let line = match line.split_once(' ') {
            Some((address, rest)) if device.ends_with(address) => format!("NIC {rest}"),
            _ => line.to_owned(),
        };
        let line = replace_after(&line, "Memory at ", ' ', "ADDRESS");
        let line = replace_after(&line, "routed to IRQ ", ' ', "NUMBER");
        let line = replace_after(&line, "IOMMU group: ", ' ', "NUMBER");
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Replaces the word after `before`.
fn replace_after(line: &str, before: &str, end: char, with: &str) -> String {
    match line.split_once(before) {
        None => line.to_owned(),
        Some((head, tail)) => {
            let rest = tail.find(end).map_or("", |at| &tail[at..]);
            format!("{head}{before}{with}{rest}")
        }
    }
}

#[test]
fn what_the_machine_assigns_is_replaced() {
    let line = "\tRegion 0: Memory at fe000000 (64-bit, prefetchable) [size=16M]";
    let expected = "\tRegion 0: Memory at ADDRESS (64-bit, prefetchable) [size=16M]";
    assert_eq!(replace_after(line, "Memory at ", ' ', "ADDRESS"), expected);
    let line = "\tInterrupt: pin A routed to IRQ 11";
    assert!(replace_after(line, "routed to IRQ ", ' ', "NUMBER").ends_with("IRQ NUMBER"));
}
