//! Events the device raises.

use mlx5_prm::queue_entry::EventType;

/// An event and its occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Type of the event.
    pub event_type: EventType,
    /// Occasion of the event.
    pub occasion: &'static str,
}

macro_rules! events {
    ($($event_type:ident: $occasion:literal;)*) => {
        /// All events the device raises.
        pub const EVENTS: &[Event] = &[$(Event { event_type: EventType::$event_type, occasion: $occasion },)*];
    };
}

events! {
    Completion: "an armed CQ has a new CQE; cq_period and cq_max_count moderate it";
    CqError: "a CQE found no room in a full CQ, which takes no CQEs from then on";
    PortChange: "the link went up or down: by PAOS, or by the cable";
    Command: "a command completed";
    WqInvalidRequestError: "a responder QP refused a request as invalid and went to error";
    WqAccessError: "a responder QP refused a request that lacked access rights and went to error";
    SrqLastWqe: "a QP went to error and takes no further WQEs from its SRQ or RMP";
    SrqRqLimit: "fewer WQEs than the limit are left in an SRQ or RMP; once per arming";
}

/// Whether the device raises events of this type.
pub fn is_raised(event_type: EventType) -> bool {
    EVENTS.iter().any(|event| event.event_type == event_type)
}
