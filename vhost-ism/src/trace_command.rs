//! The `trace` command.

use anyhow::Result;
use vhost_daemon::TraceArgs;
use vhost_daemon::trace::Events;
use vhost_ism::ism_event::{IsmEvent, IsmTimeline, times};

/// Records a trace, writes it to the file, and prints the times.
pub fn run(args: &TraceArgs) -> Result<()> {
    let trace = args.record(IsmEvent::EVENTS)?;
    let timeline = IsmTimeline::new(&trace);
    args.write(&trace, &timeline)?;
    println!("{} events, {} lost", trace.events.len(), trace.lost);
    print!("{}", times(&trace, &timeline));
    Ok(())
}
