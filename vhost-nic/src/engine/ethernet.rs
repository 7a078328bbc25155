//! Raw Ethernet: send queues and receive queues.

pub(super) mod receive;
pub(super) mod send;
