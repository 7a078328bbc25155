//! `guest-bench`: demonstrations and benchmarks between guests, over SMC-D or over the NIC.
//!
//! `scripts/demo` and `guest-tests/bench/run` prepare the images and programs, then run this.

mod comparison;
mod ethernet;
mod history;
mod interleaved;
mod nic;
mod shell;
mod smc_bench;
mod smc_demo;
mod smc_r_bench;
mod table;
mod uml;
mod verbs;
mod web;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use guest_harness::{Builder, IsmOptions, Testbed};

use smc_r_bench::Pairs;
use workload::Pair;

/// Demonstrations and benchmarks between guests, over SMC-D or over the NIC
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare SMC-D with TCP between two guests and prove that the connections used SMC-D
    SmcDemo {
        /// Keep the guests up afterwards, with a shell in each
        #[arg(long)]
        shell: bool,
    },
    /// Measure SMC-D, with the device in both of its modes, and TCP in interleaved runs
    SmcBench {
        /// Number of runs of each measurement
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Measure SMC-R, TCP over the NIC and over virtio-net, and SMC-D in both modes of the device, in interleaved runs
    SmcRBench {
        /// Number of runs of each measurement
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Also write the table to a file, in Markdown
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
    },
    /// Compare the NIC with virtio-net and software RoCE and show what the drivers report
    NicDemo {
        /// Also compare SMC-R with TCP, between two User Mode Linux guests
        #[arg(long)]
        uml: bool,
        /// Keep the guests up afterwards, with a shell in each
        #[arg(long)]
        shell: bool,
    },
    /// Measure the NIC, virtio-net and software RoCE in interleaved runs
    NicBench {
        /// Number of runs of each measurement
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::SmcDemo { shell } => boot("smc-demo", IsmOptions::default()).and_then(|testbed| {
            smc_demo::run(&testbed)?;
            end_demo(testbed, shell)
        }),
        Command::SmcBench { rounds } => bench_smc(rounds),
        Command::SmcRBench { rounds, markdown } => bench_smc_r(rounds, markdown.as_deref()),
        Command::NicDemo { uml, shell } => nic::boot_demo(uml).and_then(|testbed| {
            nic::demo(&testbed)?;
            end_demo(testbed, shell)
        }),
        Command::NicBench { rounds } => nic::boot_bench().and_then(|testbed| {
            nic::bench(&testbed, rounds)?;
            Ok(testbed.finish()?)
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench_smc(rounds: usize) -> Result<()> {
    let mapped = boot("smc-bench", IsmOptions::default())?;
    let copy_mode = IsmOptions::default().args(["--copy"]);
    let copying = start(Testbed::builder("smc-bench-copy").beside_another(), copy_mode)?;
    smc_bench::run(&Pair::over_ism(&mapped)?, &Pair::over_ism(&copying)?, rounds)?;
    mapped.finish()?;
    Ok(copying.finish()?)
}

fn bench_smc_r(rounds: usize, markdown: Option<&Path>) -> Result<()> {
    let mapped = boot("smc-r-bench-mapped", IsmOptions::default())?;
    let copy_mode = IsmOptions::default().args(["--copy"]);
    let copying = start(Testbed::builder("smc-r-bench-copy").beside_another(), copy_mode)?;
    let nic = nic::boot_beside("smc-r-bench-nic")?;
    let pairs = Pairs {
        nic: Pair::over_nic([0, 1].map(|index| nic.guest(index)))?,
        mapped: Pair::over_ism(&mapped)?,
        copying: Pair::over_ism(&copying)?,
    };
    smc_r_bench::run(&pairs, rounds, markdown)?;
    for guest in nic.guests() {
        guest.nic_check_log(&[])?;
    }
    drop(pairs);
    nic.finish()?;
    mapped.finish()?;
    Ok(copying.finish()?)
}

fn end_demo(testbed: Testbed, shell: bool) -> Result<()> {
    if shell {
        shell::run(&testbed)?;
    }
    println!("Logs: {}", testbed.finish_with_logs()?.display());
    Ok(())
}

/// Boots two guests with a virtio-ism device each and a virtio-net link between them. Each has one processor because
/// the host may have only two; the README says what that means for the figures.
fn boot(name: &str, ism: IsmOptions) -> Result<Testbed> {
    start(Testbed::builder(name), ism)
}

fn start(builder: Builder, ism: IsmOptions) -> Result<Testbed> {
    let begin = Instant::now();
    eprintln!("==> booting two guests");
    let testbed = builder.guests(2).smp(1).mesh().ism(ism).start()?;
    for guest in testbed.guests() {
        guest.pin(guest.index())?;
    }
    testbed.smc_up()?;
    eprintln!(
        "==> two guests with SMC-D over virtio-ism, {:.1} s after the start",
        begin.elapsed().as_secs_f64()
    );
    Ok(testbed)
}
