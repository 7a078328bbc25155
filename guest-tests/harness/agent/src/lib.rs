//! The protocol between the test harness and the agent inside a guest.
//!
//! Both ends speak [`frame::Frame`]s over one byte stream: a virtio-serial port in the guest, a Unix socket on the host. The stream
//! carries many channels at once, one for each command or file transfer; the harness chooses the channel numbers.
//!
//! A session starts when the harness sends [`Request::Attach`] and the agent answers [`Reply::Hello`] with a fresh *epoch*. Every later
//! frame of the session bears that epoch, and both ends drop frames with any other. This is what makes a reboot or a reopened
//! connection safe: bytes written for a session that has ended may still be delivered, and must not be acted on.
//!
//! Bulk data is under flow control. On every channel either end may have at most [`WINDOW`] bytes of data under way;
//! [`Request::Credit`] and [`Reply::Credit`] extend that as the receiver consumes. So neither end ever has to stop reading the stream,
//! and a command with much output cannot hold up another.

pub mod frame;
mod message;

pub use message::{Exit, Hello, PutRequest, Reply, Request, SpawnRequest};

/// Name of the virtio-serial port the agent listens on.
pub const PORT_NAME: &str = "control";

/// Bytes of data that either end may send on a new channel before it has received any credit.
pub const WINDOW: u32 = 256 * 1024;

/// Largest piece of data to put into one frame. A virtio-serial write moves at most 32 KiB at a time, header included.
pub const CHUNK: usize = 31 * 1024;
