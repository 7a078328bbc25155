//! The `trace` command.

use anyhow::Result;
use vhost_daemon::TraceArgs;
use vhost_daemon::trace::Events;
use vhost_nic::hca::nic_event::NicEvent;
use vhost_nic::timeline::{NicTimeline, Scope, stages};

/// Records a trace, writes it to the file, and prints the stages: of a queue, a guest, or all.
pub fn run(args: &TraceArgs, queue: Option<u32>) -> Result<()> {
    let trace = args.record(NicEvent::EVENTS)?;
    let timeline = NicTimeline::new(&trace);
    args.write(&trace, &timeline)?;
    let scope = match (args.guest(&trace.header)?, queue) {
        (Some(guest), Some(number)) => Scope::Queue { guest, number },
        (Some(guest), None) => Scope::Guest(guest),
        (None, _) => Scope::All,
    };
    println!("{} events, {} lost", trace.events.len(), trace.lost);
    print!("{}", stages(&trace, &timeline, scope));
    Ok(())
}
