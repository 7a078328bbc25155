//! vfio-user: the function of a QEMU guest.
//!
//! The VMM is the client: it sends the guest's accesses as messages over a socket, with file descriptors of guest
//! memory and of interrupts (docs/interop/vfio-user.rst of QEMU). The protocol is implemented here because the server
//! of the vfio_user crate (0.1.7) answers posted writes that fail, loses its place in the stream at an unknown message,
//! takes one descriptor per message, and panics on a client's values or allocates as much as they say.

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
