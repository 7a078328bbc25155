//! The `trace` command.

use anyhow::Result;
use vhost_daemon::TraceArgs;
use vhost_daemon::trace::Events;
use vhost_nic::hca::nic_event::NicEvent;
use vhost_nic::timeline::{NicTimeline, stages};

/// Records a trace, writes it to the file, and prints the stages.
pub fn run(args: &TraceArgs, queue: Option<u32>) -> Result<()> {
    let trace = args.record(NicEvent::EVENTS)?;
    let timeline = NicTimeline::new(&trace);
    args.write(&trace, &timeline)?;
    println!("{} events, {} lost", trace.events.len(), trace.lost);
    print!("{}", stages(&trace, &timeline, queue));
    Ok(())
}
