//! A virtio-ism device as a vhost-user back-end.
//!
//! Guests of one daemon share direct memory buffers (DMBs): one guest allocates, its peer attaches, and from then on
//! the payload moves between the two without this process. `docs/device.md` specifies the device as a driver sees it.
//!
//! ```text
//! control queue -> backend -> connection -> control -> fabric -> window (map, barrier) -> reply
//! doorbell page + kick -> backend -> doorbell -> event -> peer's event queue
//! ```
//!
//! In copy mode no memory is shared, and the payload passes through this process once:
//!
//! ```text
//! move queue -> backend -> connection -> mover -> fabric -> slab view (copy) -> bell or event -> status
//! ```
//!
//! [`fabric`] decides which guests share which memory, independently of virtio; [`control`] turns a request into calls
//! on it; [`connection`] is the device as one connection of a VMM sees it; [`backend`] is the only module that uses the
//! vhost crates and the only one that touches guest memory. A [`record`] has what passes [`tape`] and connections, and
//! [`replay`] executes the devices without queues.

#![forbid(unsafe_code)]

pub mod abi;
pub mod backend;
pub mod buddy;
pub mod connection;
pub mod control;
pub mod door;
pub mod doorbell;
pub mod event;
pub mod fabric;
pub mod fault;
pub mod guest;
mod inspect;
pub mod ism_event;
pub mod ism_finding;
pub mod mover;
pub mod record;
pub mod replay;
pub mod slab;
pub mod slab_view;
pub mod stats;
pub mod tape;
pub mod window;
