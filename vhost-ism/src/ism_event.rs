//! Execution trace: the events of the device, and what caused each.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use vhost_daemon::finding::Kind;
use vhost_daemon::trace::{Event, Events, Timeline, Times, Trace};

use crate::abi::{
    CMD_ALLOC, CMD_ALLOC_FOR_PEER, CMD_ATTACH, CMD_DETACH, CMD_EVENT_VECTOR, CMD_GRANT_DEFAULT, CMD_GRANT_DEVICE,
    CMD_MOVE, CMD_QUERY_GID, CMD_QUERY_SLAB, CMD_SEND_MESSAGE, CMD_SUBSCRIBE,
};
use crate::ism_finding::Finding;

/// `door` of a fault about bells.
pub(crate) const BELL_DOOR: u32 = 2;

vhost_daemon::trace_events! {
    /// An event of the execution trace.
    pub enum IsmEvent {
        /// A control request or a move was taken from its queue. Class in bits 15:8 of `command`.
        Arrival = "arrival" of "control_queue" [command],
        /// A control request or a move was answered. Class in bits 15:8 of `command`; duration in nanoseconds.
        Request = "request" of "control_queue" [command, status, duration],
        /// The VMM mapped memory into the window. Page and number of pages of 4 KiB; duration in nanoseconds.
        Map = "map" of "window" [page, pages, duration],
        /// The VMM unmapped memory from the window.
        Unmap = "unmap" of "window" [page, pages, duration],
        /// A kick of the doorbell queue, served from here on.
        Kick = "kick" of "doorbell_queue" [],
        /// No doorbell is left, and the kick is served.
        KickServed = "kick_served" of "doorbell_queue" [],
        /// The doorbell of a DMB was collected; the object is its first chunk in the window of the guest that rang.
        Bell = "bell" of "dmb" [],
        /// A fault of the plan struck; `door` is its place (docs/faults.md).
        Fault = "fault" of "object" [door],
        /// Events were put on the event queue, and the driver interrupted or not.
        Deliver = "deliver" of "event_queue" [count, interrupt],
        /// A finding; its object is the row of its kind in docs/findings.md, from 0. `number` is that of the finding's
        /// own object, `count` that of the findings of the kind.
        Finding = "finding" of "kind" [number, count],
    }
}

/// A duration as an argument of an event.
pub(crate) fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// Names of the requests in the device's specification.
const REQUESTS: [((u8, u8), &str); 12] = [
    (CMD_ALLOC, "ALLOC"),
    (CMD_ATTACH, "ATTACH"),
    (CMD_DETACH, "DETACH"),
    (CMD_GRANT_DEFAULT, "GRANT SET_DEFAULT"),
    (CMD_GRANT_DEVICE, "GRANT SET_FOR_DEVICE"),
    (CMD_EVENT_VECTOR, "EVENT_VECTOR SET"),
    (CMD_ALLOC_FOR_PEER, "ALLOC_FOR_PEER"),
    (CMD_QUERY_GID, "QUERY_GID"),
    (CMD_SEND_MESSAGE, "SEND_MESSAGE"),
    (CMD_QUERY_SLAB, "QUERY_SLAB"),
    (CMD_MOVE, "MOVE"),
    (CMD_SUBSCRIBE, "SUBSCRIBE"),
];

/// Work in progress on a thread, by the events that began it.
#[derive(Debug, Default)]
struct Work {
    /// The request that it executes, or the kick that it serves.
    entry: Option<usize>,
    /// The latest bell of the kick.
    bell: Option<usize>,
}

impl Work {
    /// Notes an event and returns its cause.
    fn cause(&mut self, index: usize, kind: IsmEvent, event: &Event) -> Option<usize> {
        match kind {
            IsmEvent::Arrival | IsmEvent::Kick => {
                *self = Self {
                    entry: Some(index),
                    bell: None,
                };
                None
            }
            IsmEvent::Request | IsmEvent::KickServed => std::mem::take(self).entry,
            IsmEvent::Bell => {
                self.bell = Some(index);
                self.entry
            }
            IsmEvent::Deliver => self.bell.or(self.entry),
            IsmEvent::Fault if event.arguments[0] == BELL_DOOR => self.bell.or(self.entry),
            IsmEvent::Map | IsmEvent::Unmap | IsmEvent::Fault | IsmEvent::Finding => self.entry,
        }
    }
}

/// A trace with the cause of each event.
#[derive(Debug)]
pub struct IsmTimeline {
    causes: Vec<Option<usize>>,
}

impl IsmTimeline {
    /// Finds the causes of a trace's events. A guest's doorbells and requests are delivered to its peers on its own
    /// threads.
    pub fn new(trace: &Trace) -> Self {
        let mut threads = HashMap::<u32, Work>::new();
        let mut cause = |index, event: &Event| {
            let kind = IsmEvent::at(event.event)?;
            threads.entry(event.thread).or_default().cause(index, kind, event)
        };
        Self {
            causes: trace
                .events
                .iter()
                .enumerate()
                .map(|(index, event)| cause(index, event))
                .collect(),
        }
    }
}

impl Timeline for IsmTimeline {
    fn label(&self, event: &Event) -> Cow<'static, str> {
        let [first, second, ..] = event.arguments;
        match IsmEvent::at(event.event) {
            Some(IsmEvent::Arrival) => format!("{} taken", request(first)).into(),
            Some(IsmEvent::Request) if second == 0 => request(first).into(),
            Some(IsmEvent::Request) => format!("{} refused: status {second}", request(first)).into(),
            Some(IsmEvent::Map) => format!("map {second} pages").into(),
            Some(IsmEvent::Unmap) => format!("unmap {second} pages").into(),
            Some(IsmEvent::Kick) => "kick".into(),
            Some(IsmEvent::KickServed) => "kick served".into(),
            Some(IsmEvent::Bell) => "bell".into(),
            Some(IsmEvent::Fault) => "fault".into(),
            Some(IsmEvent::Deliver) if second == 0 => format!("{first} events, no interrupt").into(),
            Some(IsmEvent::Deliver) => format!("{first} events and an interrupt").into(),
            Some(IsmEvent::Finding) => match Finding::ALL.get(event.object as usize) {
                Some(kind) => format!("{} {first:#x}", kind.name()).into(),
                None => "unknown finding".into(),
            },
            None => "unknown".into(),
        }
    }

    fn track(&self, kind: &str, object: u32) -> Option<Cow<'static, str>> {
        let finding = Finding::ALL.get(object as usize).filter(|_| kind == "kind");
        finding.map(|finding| format!("finding {}", finding.name()).into())
    }

    fn duration(&self, event: &Event) -> u64 {
        match IsmEvent::at(event.event) {
            Some(IsmEvent::Request | IsmEvent::Map | IsmEvent::Unmap) => event.arguments[2].into(),
            _ => 0,
        }
    }

    fn parent(&self, index: usize) -> Option<usize> {
        self.causes.get(index).copied().flatten()
    }
}

fn request(command: u32) -> String {
    let [_, _, class, cmd] = command.to_be_bytes();
    let name = REQUESTS.iter().find(|(known, _)| *known == (class, cmd));
    name.map_or_else(|| format!("request {class:#x}.{cmd}"), |(_, name)| (*name).to_owned())
}

/// Part of a trace whose times are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Times of every guest.
    All,
    /// Requests, maps and bells of a guest.
    Guest(u16),
    /// Bells that a guest rings for a DMB.
    Dmb {
        /// Guest that rings.
        guest: u16,
        /// First chunk of the DMB in its window.
        chunk: u32,
    },
}

impl Scope {
    /// Whether an event is of the guest or DMB.
    fn contains(self, event: &Event) -> bool {
        match self {
            Self::All => true,
            Self::Guest(guest) => event.guest == guest,
            Self::Dmb { guest, chunk } => {
                event.guest == guest && event.object == chunk && IsmEvent::at(event.event) == Some(IsmEvent::Bell)
            }
        }
    }
}

/// The duration of requests, maps and unmaps, and the time from a bell to its delivery.
pub fn times(trace: &Trace, timeline: &IsmTimeline, scope: Scope) -> Times {
    let mut times = Times::new(["bell to delivery"]);
    for (index, event) in trace.events.iter().enumerate() {
        match IsmEvent::at(event.event) {
            Some(IsmEvent::Deliver) => {
                let cause = timeline.parent(index).map(|parent| &trace.events[parent]);
                let is_bell = |cause: &&Event| IsmEvent::at(cause.event) == Some(IsmEvent::Bell);
                if let Some(bell) = cause.filter(is_bell).filter(|bell| scope.contains(bell)) {
                    times.add("bell to delivery", event.time.saturating_sub(bell.time));
                }
            }
            _ if !scope.contains(event) => {}
            Some(IsmEvent::Request) => times.add(&request(event.arguments[0]), timeline.duration(event)),
            Some(IsmEvent::Map) => times.add("map", timeline.duration(event)),
            Some(IsmEvent::Unmap) => times.add("unmap", timeline.duration(event)),
            _ => {}
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use vhost_daemon::testing::assert_events_documented;

    use super::*;

    #[test]
    fn every_event_is_documented() {
        assert_events_documented(include_str!("../../docs/trace.md"), IsmEvent::EVENTS);
    }
}
