//! PCI over virtio over vhost-user: the function of a User Mode Linux guest (arch/um/drivers/virtio_pcidev.c).
//!
//! The guest's kernel is the vhost-user front-end. Its configuration space and BAR accesses come as commands on one virtqueue,
//! its interrupts go out on the other; each has a worker thread. A connection is one life of the device: when it ends, the
//! function is reset.

mod backend;
mod commands;
mod interrupts;
mod message;
mod queue;
mod server;
mod stats;

pub use server::Server;
pub use stats::{GuestError, VhostUserPciStats};
