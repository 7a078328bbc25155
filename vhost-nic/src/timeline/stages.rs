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

/// Part of a trace whose stages are measured: what doorbells and WQEs in it caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Times of every guest.
    All,
    /// A guest, commands included.
    Guest(u16),
    /// A queue of a guest. QPs, SQs and RQs share their numbers; each NIC counts its own.
    Queue {
        /// Guest.
        guest: u16,
        /// Number of the queue.
        number: u32,
    },
}

impl Scope {
    /// Whether what an event causes is in the scope, whatever caused the event.
    fn begins_with(self, event: &Event) -> bool {
        use NicEvent::{BlueFlame, CommandDoorbell, Doorbell, FrameWqe, Wqe};

        let kind = NicEvent::at(event.event);
        let posts = matches!(kind, Some(Doorbell | BlueFlame | Wqe | FrameWqe));
        match self {
            Self::All => true,
            Self::Guest(guest) => event.guest == guest && (posts || kind == Some(CommandDoorbell)),
            Self::Queue { guest, number } => event.guest == guest && event.object == number && posts,
        }
    }
}

/// Measures the stages of the messages and commands of a scope.
pub fn stages(trace: &Trace, timeline: &NicTimeline, scope: Scope) -> Times {
    let mut times = Times::new(STAGES.iter().map(|(name, ..)| *name));
    // Causes come first.
    let mut belongs = Vec::with_capacity(trace.events.len());
    for (index, event) in trace.events.iter().enumerate() {
        let parent = timeline.parent(index);
        belongs.push(scope.begins_with(event) || parent.is_some_and(|parent| belongs[parent]));
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
