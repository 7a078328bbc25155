//! The devices of the `replay` command.

use std::fs::File;
use std::io::{self, Write};

use vhost_daemon::Replayed;
use vhost_daemon::record::RecordError;
use vhost_daemon::trace::{EventInfo, Events, Trace, write_perfetto};
use vhost_ism::ism_event::{IsmEvent, IsmTimeline};
use vhost_ism::record::{IsmRecord, Setup};
use vhost_ism::replay::{Counts, Report, replay};

/// A fabric and its guests.
pub struct IsmReplay;

impl Replayed for IsmReplay {
    type Format = IsmRecord;
    type Counts = Counts;

    fn replay(&self, record: File, limit: Option<u64>) -> Result<Report, RecordError> {
        replay(record, limit)
    }

    fn describe(&self, setup: &Setup) -> (String, Vec<String>) {
        let names = setup.guests.join(", ");
        let title = format!("guests {names}, recorded by {}", setup.program);
        (title, setup.guests.clone())
    }

    fn events(&self) -> &'static [EventInfo] {
        IsmEvent::EVENTS
    }

    fn write_trace(&self, trace: &Trace, mut out: &mut dyn Write) -> io::Result<()> {
        write_perfetto(&mut out, trace, &IsmTimeline::new(trace))
    }
}
