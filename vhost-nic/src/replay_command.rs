//! The `replay` command.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use log::LevelFilter;
use vhost_daemon::trace::{Events, Header, Session, Trace, start_flight_recorder, write_perfetto, write_stream};
use vhost_nic::hca::nic_event::NicEvent;
use vhost_nic::net::capture::Output;
use vhost_nic::record::Reader;
use vhost_nic::replay::{Report, copy_prefix, replay, shortest_prefix};
use vhost_nic::timeline::NicTimeline;

use crate::args::ReplayArgs;
use crate::daemon::PROGRAM;

/// Replays a record and prints the result. Fails if it differs, or does not show the finding.
pub fn run(args: &ReplayArgs) -> Result<()> {
    // Findings are printed, once, with their place.
    log::set_max_level(LevelFilter::Off);
    let of_file = || format!("cannot replay {}", args.file.display());
    let setup = Reader::new(open(&args.file)?).with_context(of_file)?.setup().clone();
    println!("guest {}, recorded by {}", setup.name, setup.program);
    let limit = match &args.find {
        None => args.until,
        Some(kind) => Some(find(args, kind).with_context(of_file)?),
    };
    if args.trace.is_some() {
        start_flight_recorder();
    }
    let report = replay(open(&args.file)?, limit).with_context(of_file)?;
    if args.find.is_some() {
        print_last(&report);
    }
    println!("{report}");
    if let Some(path) = &args.trace {
        write_trace(path, &setup.name, setup.vhca_id)?;
    }
    if let Some(path) = &args.output {
        let target = path.display();
        let output = Output::open(path).with_context(|| format!("cannot write the record to {target}"))?;
        let output = BufWriter::new(output.file);
        copy_prefix(open(&args.file)?, output, report.entries).with_context(of_file)?;
    }
    match report.difference {
        Some(_) => Err(anyhow!("the replay differs from the record").context(of_file())),
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Returns the length of the shortest prefix that shows a finding of this kind.
fn find(args: &ReplayArgs, kind: &str) -> Result<u64> {
    let prefix = shortest_prefix(|| File::open(&args.file), |found| found.kind == kind)?;
    let Some(prefix) = prefix else {
        bail!("it shows no {kind}");
    };
    println!("shortest prefix that shows {kind}: {} entries", prefix.entries);
    Ok(prefix.entries)
}

fn print_last(report: &Report) {
    for (position, event) in &report.last {
        println!("  event {position}: {event}");
    }
}

/// Writes what the NIC recorded in the replay, for Perfetto.
fn write_trace(path: &Path, guest: &str, number: u16) -> Result<()> {
    let mut names = vec![String::new(); usize::from(number)];
    names.push(guest.to_owned());
    let header = Header::new(PROGRAM, &names, NicEvent::EVENTS);
    let mut stream = Vec::new();
    write_stream(&mut stream, Session::start(true), Duration::ZERO)?;
    let trace = Trace::read(&mut stream.as_slice(), header, NicEvent::EVENTS, |_| {})?;
    let write = || {
        write_perfetto(
            &mut BufWriter::new(File::create(path)?),
            &trace,
            &NicTimeline::new(&trace),
        )
    };
    write().with_context(|| format!("cannot write the trace to {}", path.display()))?;
    println!("{} events in the trace, {} lost", trace.events.len(), trace.lost);
    Ok(())
}
