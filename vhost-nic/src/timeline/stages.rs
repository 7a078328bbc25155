//! The time that each stage of a send WQE takes.

use vhost_daemon::trace::{Event, Events, Timeline, Times, Trace};

use super::NicTimeline;
use crate::hca::nic_event::NicEvent;

/// Stages in order: the time from a cause to its effect.
const STAGES: [(&str, NicEvent, NicEvent); 17] = [
    ("doorbell to command", NicEvent::CommandDoorbell, NicEvent::Command),
    ("command to EQE", NicEvent::Command, NicEvent::Eqe),
    ("doorbell to service", NicEvent::Doorbell, NicEvent::Service),
    ("doorbell to WQE", NicEvent::Doorbell, NicEvent::Wqe),
    ("BlueFlame to WQE", NicEvent::BlueFlame, NicEvent::Wqe),
    ("WQE to packet", NicEvent::Wqe, NicEvent::PacketOut),
    ("packet to peer", NicEvent::PacketOut, NicEvent::PacketIn),
    ("peer to response", NicEvent::PacketIn, NicEvent::PacketOut),
    ("packet to CQE", NicEvent::PacketIn, NicEvent::Cqe),
    ("doorbell to frame WQE", NicEvent::Doorbell, NicEvent::FrameWqe),
    ("frame WQE to peer", NicEvent::FrameWqe, NicEvent::FrameIn),
    ("frame to CQE", NicEvent::FrameIn, NicEvent::Cqe),
    ("frame WQE to CQE", NicEvent::FrameWqe, NicEvent::Cqe),
    ("CQE to EQE", NicEvent::Cqe, NicEvent::Eqe),
    ("EQE to interrupt", NicEvent::Eqe, NicEvent::Interrupt),
    ("timer", NicEvent::TimerSet, NicEvent::TimerExpired),
    ("moderation", NicEvent::ModerationSet, NicEvent::ModerationExpired),
];

/// Measures the stages of all messages, or of those of one queue: what its doorbells and WQEs caused.
pub fn stages(trace: &Trace, timeline: &NicTimeline, queue: Option<u32>) -> Times {
    let mut times = Times::new(STAGES.iter().map(|(name, ..)| *name));
    // Causes come first.
    let mut belongs = Vec::with_capacity(trace.events.len());
    for (index, event) in trace.events.iter().enumerate() {
        let parent = timeline.parent(index);
        let own = queue.is_none_or(|queue| is_of(event, queue));
        belongs.push(own || parent.is_some_and(|parent| belongs[parent]));
        let Some(cause) = parent.map(|parent| &trace.events[parent]) else {
            continue;
        };
        let kinds = (NicEvent::at(cause.event), NicEvent::at(event.event));
        let stage = STAGES.iter().find(|(_, from, to)| kinds == (Some(*from), Some(*to)));
        if let (Some((name, ..)), true) = (stage, belongs[index]) {
            times.add(name, event.time.saturating_sub(cause.time));
        }
    }
    times
}

fn is_of(event: &Event, queue: u32) -> bool {
    let kind = NicEvent::at(event.event);
    event.object == queue
        && matches!(
            kind,
            Some(NicEvent::Doorbell | NicEvent::BlueFlame | NicEvent::Wqe | NicEvent::FrameWqe)
        )
}
