//! The protocol between the test harness and the agent inside a guest.
//!
//! Both ends exchange [`frame::Frame`]s over one byte stream: a virtio-serial port in the guest, a Unix socket on the
//! host. The stream multiplexes channels, one per command or file transfer; the harness chooses the channel numbers.
//!
//! A session starts when the harness sends [`Request::Attach`] and the agent answers [`Reply::Hello`] with a fresh
//! *epoch*. Every later frame of the session carries that epoch, and both ends drop frames with any other. This makes a
//! reboot or a reopened connection safe: bytes written for an earlier session may still be delivered, and must be
//! ignored.
//!
//! Bulk data is under flow control. On every channel each end may have at most [`WINDOW`] bytes of data in flight;
//! [`Request::Credit`] and [`Reply::Credit`] extend that as the receiver consumes data. So neither end ever has to stop
//! reading the stream, and a command with much output cannot block another.

#![forbid(unsafe_code)]

pub mod frame;
mod message;

pub use message::{Exit, Hello, PutRequest, Reply, Request, SpawnRequest};

/// Name of the virtio-serial port the agent listens on.
pub const PORT_NAME: &str = "control";

/// Bytes of data that each end may send on a new channel before it receives any credit.
pub const WINDOW: u32 = 256 * 1024;

/// Maximum data in one frame. A virtio-serial write transfers at most 32 KiB, header included.
pub const CHUNK: usize = 31 * 1024;
