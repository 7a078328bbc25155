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
    CqError: "no room for a CQE, or no access to it or the doorbell record; the CQ takes no CQEs from then on";
    PortChange: "the link went up or down: by PAOS, or by the cable";
    Command: "a command completed";
    WqCatastrophicError: "a QP, RQ or SQ went to error: no access to its doorbell record, or CQ in error";
    SrqCatastrophicError: "an SRQ or RMP went to error: no access to doorbell record or WQE, or CQ in error";
    WqInvalidRequestError: "a responder QP refused a request as invalid and went to error";
    WqAccessError: "a responder QP refused a request that lacked access rights and went to error";
    SrqLastWqe: "a QP went to error and takes no further WQEs from its SRQ or RMP";
    SrqRqLimit: "fewer WQEs than the limit are left in an SRQ or RMP; once per arming";
}

/// Type of the queue that an event is about (`MLX5_EVENT_QUEUE_TYPE_*`, driver.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EventQueue {
    /// QP, or an SRQ in an event that is about SRQs only.
    Qp = 0,
    /// RQ.
    Rq = 1,
    /// SQ.
    Sq = 2,
}

/// Returns the data of an event about a queue (`struct mlx5_eqe_qp_srq`, device.h).
pub fn event_data(queue: EventQueue, number: u32) -> [u8; 28] {
    let mut data = [0; 28];
    data[20] = queue as u8;
    data[24..].copy_from_slice(&number.to_be_bytes());
    data
}

/// Whether the device raises events of this type.
pub fn is_raised(event_type: EventType) -> bool {
    EVENTS.iter().any(|event| event.event_type == event_type)
}
