//! The NIC of the `replay` command.

use std::fs::File;
use std::io::{self, Write};

use vhost_daemon::Replayed;
use vhost_daemon::record::RecordError;
use vhost_daemon::trace::{EventInfo, Events, Trace, write_perfetto};
use vhost_nic::hca::nic_event::NicEvent;
use vhost_nic::record::{NicRecord, Setup};
use vhost_nic::replay::{Counts, Report, replay};
use vhost_nic::timeline::NicTimeline;

/// The NIC.
pub struct NicReplay;

impl Replayed for NicReplay {
    type Format = NicRecord;
    type Counts = Counts;

    fn replay(&self, record: File, limit: Option<u64>) -> Result<Report, RecordError> {
        replay(record, limit)
    }

    fn describe(&self, setup: &Setup) -> (String, Vec<String>) {
        let title = format!("guest {}, recorded by {}", setup.name, setup.program);
        let mut guests = vec![String::new(); usize::from(setup.vhca_id)];
        guests.push(setup.name.clone());
        (title, guests)
    }

    fn events(&self) -> &'static [EventInfo] {
        NicEvent::EVENTS
    }

    fn write_trace(&self, trace: &Trace, mut out: &mut dyn Write) -> io::Result<()> {
        write_perfetto(&mut out, trace, &NicTimeline::new(trace))
    }
}
