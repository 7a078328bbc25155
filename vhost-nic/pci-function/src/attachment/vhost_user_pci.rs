//! PCI over virtio over vhost-user: the function of a User Mode Linux guest (arch/um/drivers/virtio_pcidev.c).
//!
//! The guest's kernel is the vhost-user front-end. Accesses to configuration space and BARs arrive as commands on one
//! virtqueue, interrupts leave on the other; each has a worker thread. When a connection ends, the function is reset.

mod backend;
mod commands;
mod interrupts;
mod message;
mod queue;
mod server;
mod stats;

pub use server::Server;
pub use stats::{Finding, VhostUserPciStats};
