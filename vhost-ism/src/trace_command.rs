//! The `trace` command.

use anyhow::Result;
use vhost_daemon::TraceArgs;
use vhost_daemon::trace::Events;
use vhost_ism::ism_event::{IsmEvent, IsmTimeline, Scope, times};

/// Records a trace, writes it to the file, and prints the times: of a DMB, a guest, or all.
pub fn run(args: &TraceArgs, dmb: Option<u32>) -> Result<()> {
    let trace = args.record(IsmEvent::EVENTS)?;
    let timeline = IsmTimeline::new(&trace);
    args.write(&trace, &timeline)?;
    let scope = match (args.guest(&trace.header)?, dmb) {
        (Some(guest), Some(chunk)) => Scope::Dmb { guest, chunk },
        (Some(guest), None) => Scope::Guest(guest),
        (None, _) => Scope::All,
    };
    println!("{} events, {} lost", trace.events.len(), trace.lost);
    print!("{}", times(&trace, &timeline, scope));
    Ok(())
}
