//! `guest-bench`: guests that talk SMC-D, or Ethernet and verbs through the NIC, to look at and to measure.
//!
//! `scripts/demo` and `guest-tests/bench/run` set up what is missing and then run this.

mod bench;
mod beside;
mod demo;
mod ethernet;
mod history;
mod nic;
mod shell;
mod table;
mod turns;
mod user_mode;
mod verbs;
mod web;
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};
use guest_harness::{IsmOptions, Testbed};

use workload::Pair;

/// Guests that talk SMC-D, or Ethernet and verbs through the NIC, to look at and to measure.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// SMC-D beside TCP between two guests, in one table, with the proof that it was SMC-D
    SmcDemo {
        /// Keep the guests up afterwards, for a shell in each
        #[arg(long)]
        shell: bool,
    },
    /// Measure in turns, several times over
    SmcBench {
        /// How often each measurement is repeated
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// The NIC between guests beside virtio-net and software RoCE, in tables, with what the drivers say of it
    NicDemo {
        /// Keep the guests up afterwards, for a shell in each
        #[arg(long)]
        shell: bool,
    },
    /// The NIC beside virtio-net and software RoCE, measured in turns, several times over
    NicBench {
        /// How often each measurement is repeated
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::SmcDemo { shell } => boot("smc-demo").and_then(|bed| {
            demo::run(&Pair::start(&bed)?)?;
            end_demo(bed, shell)
        }),
        Command::SmcBench { rounds } => boot("smc-bench").and_then(|bed| {
            bench::run(&Pair::start(&bed)?, rounds)?;
            Ok(bed.finish()?)
        }),
        Command::NicDemo { shell } => nic::boot("nic-demo", 2).and_then(|bed| {
            nic::demo(&bed)?;
            end_demo(bed, shell)
        }),
        Command::NicBench { rounds } => nic::boot("nic-bench", 0).and_then(|bed| {
            nic::bench(&bed, rounds)?;
            Ok(bed.finish()?)
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

fn end_demo(bed: Testbed, shell: bool) -> Result<()> {
    if shell {
        shell::run(&bed)?;
    }
    println!("Logs: {}", bed.finish_with_logs()?.display());
    Ok(())
}

/// Two guests with a virtio-ism device each, and a virtio-net link between them. One processor each, because the host
/// may have only two; see the README on what that means for the figures.
fn boot(name: &str) -> Result<Testbed> {
    let begin = Instant::now();
    eprintln!("==> booting two guests");
    let bed = Testbed::builder(name)
        .guests(2)
        .smp(1)
        .mesh()
        .ism(IsmOptions::default())
        .start()?;
    for guest in bed.guests() {
        guest.pin(guest.index())?;
    }
    bed.smc_up()?;
    eprintln!(
        "==> two guests with SMC-D over virtio-ism, {:.1} s after the start",
        begin.elapsed().as_secs_f64()
    );
    Ok(bed)
}
