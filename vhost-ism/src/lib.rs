//! A virtio-ism device as a vhost-user backend.
//!
//! Guests of one daemon share direct memory buffers (DMBs): one guest allocates, its peer attaches, and from then on the
//! payload moves between the two without this process. What a driver sees is stated in `docs/device.md`.
//!
//! ```text
//! control queue -> backend -> control -> fabric -> window (map, barrier) -> reply
//! doorbell page + kick -> backend -> doorbell -> event -> peer's event queue
//! ```
//!
//! [`fabric`] decides who may see which memory and knows nothing of virtio; [`control`] turns a request into calls on it;
//! [`backend`] is the only module that knows the vhost crates and the only one that touches guest memory.

pub mod abi;
pub mod backend;
pub mod buddy;
pub mod control;
pub mod doorbell;
pub mod event;
pub mod fabric;
pub mod guest;
pub mod slab;
pub mod stats;
pub mod window;
