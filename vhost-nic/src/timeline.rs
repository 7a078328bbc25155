//! Reading of execution traces: causes of events, their labels, and the time that each stage of a message takes.
//!
//! The events, [`NicEvent`], carry what the device knows at that moment;
//! what caused what is found here, afterwards.

mod causes;
mod label;
mod stages;

use std::borrow::Cow;

use vhost_daemon::trace::{Event, Events, Timeline, Trace};

pub use stages::{Scope, stages};

use crate::hca::nic_event::NicEvent;

/// A trace with the cause of each event.
#[derive(Debug)]
pub struct NicTimeline {
    causes: Vec<Option<usize>>,
}

impl NicTimeline {
    /// Finds the causes of a trace's events.
    pub fn new(trace: &Trace) -> Self {
        Self {
            causes: causes::find(&trace.events),
        }
    }
}

impl Timeline for NicTimeline {
    fn label(&self, event: &Event) -> Cow<'static, str> {
        label::of(event)
    }

    fn track(&self, kind: &str, object: u32) -> Option<Cow<'static, str>> {
        match kind {
            "purpose" => Some(format!("dma {}", label::purpose(object)).into()),
            "kind" => label::finding(object).map(|name| format!("finding {name}").into()),
            _ => None,
        }
    }

    fn duration(&self, event: &Event) -> u64 {
        match NicEvent::at(event.event) {
            Some(NicEvent::Command) => event.arguments[3].into(),
            _ => 0,
        }
    }

    fn parent(&self, index: usize) -> Option<usize> {
        self.causes.get(index).copied().flatten()
    }
}
