//! One connection of a client.

use std::io;
use std::os::unix::net::UnixStream;

use log::{debug, warn};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use vhost_daemon::heartbeat::Heartbeat;
use zerocopy::IntoBytes;

use super::interrupts::EventFds;
use super::receiver::{Descriptors, Receiver};
use super::session::Session;
use super::stats::VfioUserStats;
use super::wire::{Header, flags};
use crate::function::PciFunction;
use crate::msix::Masking;

/// Serves a client until it is gone, then resets the function and drops everything that the client set up.
pub fn serve_stream(name: &str, stream: &UnixStream, function: &PciFunction, stats: &VfioUserStats) {
    serve_client(name, stream, function, stats);
    function.disconnect();
    function.power_cycle();
    function.dma().unmap_all();
}

/// Serves a client until it is gone. The caller resets the function afterwards.
pub(super) fn serve_client(name: &str, stream: &UnixStream, function: &PciFunction, stats: &VfioUserStats) {
    stats.connections.increment();
    let eventfds = EventFds::new(function.msix().vectors());
    function.connect(eventfds.clone(), Masking::Attachment);
    match converse(name, stream, Session::new(function, eventfds), stats) {
        Ok(()) => debug!("{name}: the client disconnected"),
        Err(error) => {
            stats.broken_connections.increment();
            warn!("{name}: the client's connection is closed: {error}");
        }
    }
}

fn converse(name: &str, stream: &UnixStream, mut session: Session<'_>, stats: &VfioUserStats) -> io::Result<()> {
    let mut receiver = Receiver::new(stream);
    let mut descriptors = Descriptors::default();
    let mut reply = Vec::new();
    let mut silent = false;
    let heartbeat = Heartbeat::new(name, "attachment");
    while let Some(message) = receiver.next(&mut descriptors)? {
        stats.messages.increment();
        let mut header = message.header;
        let wanted = header.flags.get() & flags::NO_REPLY == 0;
        reply.clear();
        reply.resize(size_of::<Header>(), 0);
        let result = heartbeat.work(|| session.execute(&message, &mut descriptors, &mut reply));
        header.flags = flags::REPLY.into();
        header.error = 0.into();
        if let Err(errno) = result {
            stats.errors.increment();
            if !silent {
                // Only the first failure is logged: a client must not fill the log.
                silent = true;
                warn!("{name}: command {} failed: {errno}", header.command);
            }
            reply.truncate(size_of::<Header>());
            header.flags = (flags::REPLY | flags::ERROR).into();
            header.error = (errno.raw_os_error() as u32).into();
        }
        if wanted {
            header.message_size = (reply.len() as u32).into();
            reply[..size_of::<Header>()].copy_from_slice(header.as_bytes());
            if !send_all(stream, &reply)? {
                return Ok(());
            }
        }
        if !session.negotiated() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no version was negotiated"));
        }
    }
    Ok(())
}

/// Sends all of `bytes`. Returns false if the client has disconnected.
fn send_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<bool> {
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}
