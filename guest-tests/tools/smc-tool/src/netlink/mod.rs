//! The state of SMC reported by the kernel over netlink.

mod attributes;
mod diag_wire;
mod family;
mod transport;

pub mod devices;
pub mod eid;
pub mod fallback;
pub mod gid;
pub mod link_groups;
pub mod pnetid;
pub mod sockets;
pub mod statistics;
pub mod system;

mod error;

pub use error::NetlinkError;
pub use family::SmcFamily;
