//! vfio-user: the function of a QEMU guest.
//!
//! The VMM is the client: it sends the guest's accesses as messages over a socket, and descriptors for guest memory and
//! interrupts with them (docs/interop/vfio-user.rst of QEMU). The protocol is spoken here and not by the vfio_user crate, whose
//! server (0.1.7) answers posted writes that fail, loses its place in the stream at a message it does not know, takes one
//! descriptor per message, and panics on or allocates whatever a client says.

mod connection;
mod interrupts;
mod receiver;
mod server;
mod session;
mod stats;
mod version;
mod wire;

pub use connection::serve_stream;
pub use server::Server;
pub use stats::{VfioUserSnapshot, VfioUserStats};

/// The longest message in bytes: a write of as much as can be written at once.
const MAX_MESSAGE: usize = size_of::<wire::Header>() + size_of::<wire::RegionAccess>() + version::MAX_DATA_XFER_SIZE;
