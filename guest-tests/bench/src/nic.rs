//! The NIC between guests: what it does, and how fast, beside what QEMU and Linux have of their own.

use std::time::Instant;

use anyhow::{Result, ensure};
use guest_harness::{NicOptions, NicSetup, Testbed};

use crate::history::History;
use crate::turns::Extreme;
use crate::verbs::Verbs;
use crate::{ethernet, user_mode, verbs};

/// Two guests with a virtio-net link and a NIC each, one processor each, because the host may have only two. MTU 1500 on both
/// networks. And `uml_guests` User Mode Linux guests on the same switch.
pub fn boot(name: &str, uml_guests: usize) -> Result<Testbed> {
    let begin = Instant::now();
    eprintln!("==> booting {} guests", 2 + uml_guests);
    let bed = Testbed::builder(name)
        .guests(2)
        .uml_guests(uml_guests)
        .smp(1)
        .mesh()
        .nic(NicOptions::default())
        .start()?;
    for guest in bed.guests() {
        guest.pin(guest.index())?;
    }
    bed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    eprintln!(
        "==> {} guests with mlx5_core and mlx5_ib on vhost-nic, {:.1} s after the start",
        bed.guests().len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(bed)
}

/// Runs everything once and prints the tables.
pub fn demo(bed: &Testbed) -> Result<()> {
    eprintln!("==> Ethernet: the NIC beside virtio-net");
    ethernet::show(bed)?;
    eprintln!("==> verbs: the NIC beside the kernel's software RoCE (rdma_rxe) over virtio-net");
    verbs::show(&Verbs::start(bed)?)?;
    eprintln!("==> User Mode Linux: SMC-R over the NIC beside TCP over it");
    user_mode::show(bed, [2, 3])?;
    for guest in bed.guests() {
        guest.nic_check_log(&[])?;
    }
    println!("No warning of the drivers in any guest's log.");
    Ok(())
}

/// Measures in turns, `rounds` times, and prints the tables.
pub fn bench(bed: &Testbed, rounds: usize) -> Result<()> {
    ensure!(rounds > 0, "there is nothing to measure in no rounds");
    let mut history = History::open("nic", rounds)?;
    let pair = ethernet::Pair::start(bed)?;
    let verbs = Verbs::start(bed)?;
    let mut of_ethernet = ethernet::turns();
    let mut of_verbs = verbs::turns();
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}: Ethernet");
        of_ethernet.round(|way| pair.figures(way))?;
        eprintln!("    round {round} of {rounds}: verbs");
        of_verbs.round(|way| verbs.figures(way))?;
    }
    of_ethernet.print(Extreme::Min, &mut history);
    verbs::print(&of_verbs, &mut history);
    history.close()
}
