//! The NIC between guests, compared with virtio-net and software RoCE.

use std::time::Instant;

use anyhow::{Result, ensure};
use guest_harness::{Builder, NicOptions, NicSetup, Testbed};

use crate::history::History;
use crate::interleaved::Extreme;
use crate::verbs::Verbs;
use crate::{ethernet, uml, verbs};

/// Boots the guests of the demonstration with Debian's newest kernel, as the NIC needs no other, and with `uml` two
/// User Mode Linux guests on the same switch.
pub fn boot_demo(uml: bool) -> Result<Testbed> {
    // Under emulation on a busy host a processor stands still for longer than the kernel thinks possible.
    let builder = Testbed::builder("nic-demo")
        .stock_kernel("7.x")
        .kernel_arg("rcupdate.rcu_cpu_stall_suppress=1");
    boot(builder.uml_guests(if uml { 2 } else { 0 }))
}

/// Boots the guests of the measurements with our own kernel, as its figures are compared with those of earlier commits.
pub fn boot_bench() -> Result<Testbed> {
    boot(Testbed::builder("nic-bench"))
}

/// Boots the guests of a benchmark beside those of another testbed.
pub fn boot_beside(name: &str) -> Result<Testbed> {
    boot(Testbed::builder(name).beside_another())
}

/// Boots two QEMU guests with a NIC each and a virtio-net link between them. Each has one processor because the host
/// may have only two. The MTU is 1500 on both networks.
fn boot(builder: Builder) -> Result<Testbed> {
    let begin = Instant::now();
    eprintln!("==> booting guests");
    let testbed = builder.guests(2).smp(1).mesh().nic(NicOptions::default()).start()?;
    for guest in testbed.guests() {
        guest.pin(guest.index())?;
    }
    testbed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    eprintln!(
        "==> {} guests with mlx5_core and mlx5_ib on vhost-nic, {:.1} s after the start",
        testbed.guests().len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(testbed)
}

/// Runs everything once and prints the tables.
pub fn demo(testbed: &Testbed) -> Result<()> {
    eprintln!("==> Ethernet: the NIC and virtio-net");
    ethernet::show(testbed)?;
    eprintln!("==> verbs: the NIC and the kernel's software RoCE (rdma_rxe) over virtio-net");
    verbs::show(&Verbs::start(testbed)?)?;
    if testbed.guests().len() > 2 {
        eprintln!("==> User Mode Linux: SMC-R and TCP, both over the NIC");
        uml::show(testbed, [2, 3])?;
    }
    for guest in testbed.guests() {
        guest.nic_check_log(&[])?;
    }
    println!("No driver warnings in any guest's log.");
    Ok(())
}

/// Measures `rounds` interleaved rounds and prints the tables.
pub fn bench(testbed: &Testbed, rounds: usize) -> Result<()> {
    ensure!(rounds > 0, "--rounds must be at least 1");
    let mut history = History::open("nic", rounds)?;
    let pair = ethernet::Pair::start(testbed)?;
    let verbs = Verbs::start(testbed)?;
    let mut ethernet_runs = ethernet::interleaved();
    let mut verbs_runs = verbs::interleaved();
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}: Ethernet");
        ethernet_runs.round(|variant| pair.figures(variant))?;
        eprintln!("    round {round} of {rounds}: verbs");
        verbs_runs.round(|variant| verbs.figures(variant))?;
    }
    ethernet_runs.print(Extreme::Min, &mut history);
    verbs::print(&verbs_runs, &mut history);
    history.close()
}
