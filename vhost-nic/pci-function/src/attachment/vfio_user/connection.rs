//! One connection of a client.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{debug, error, warn};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use zerocopy::IntoBytes;

use super::interrupts::EventFds;
use super::receiver::{Descriptors, Receiver};
use super::session::Session;
use super::stats::VfioUserStats;
use super::wire::{Header, flags};
use crate::function::PciFunction;
use crate::msix::Masking;

/// Serves a client until it disconnects. Then the function is as after power-on, without the client's memory and
/// interrupts.
///
/// A panic in the device ends this connection instead of the process, which serves other guests as well.
pub fn serve_stream(name: &str, stream: &UnixStream, function: &PciFunction, stats: &VfioUserStats) {
    VfioUserStats::add(&stats.connections);
    let eventfds = EventFds::new(function.msix().vectors());
    function.connect(eventfds.clone(), Masking::Attachment);
    let served = catch_unwind(AssertUnwindSafe(|| {
        converse(name, stream, Session::new(function, eventfds), stats)
    }));
    match served {
        Ok(Ok(())) => debug!("{name}: the client disconnected"),
        Ok(Err(error)) => {
            VfioUserStats::add(&stats.broken);
            warn!("{name}: connection closed: {error}");
        }
        Err(_) => error!("{name}: the device panicked; connection closed"),
    }
    function.disconnect();
    if catch_unwind(AssertUnwindSafe(|| function.reset())).is_err() {
        error!("{name}: the device panicked during reset");
    }
    function.dma().unmap_all();
}

fn converse(name: &str, stream: &UnixStream, mut session: Session<'_>, stats: &VfioUserStats) -> io::Result<()> {
    let mut receiver = Receiver::new(stream);
    let mut descriptors = Descriptors::default();
    let mut reply = Vec::new();
    let mut silent = false;
    while let Some(message) = receiver.next(&mut descriptors)? {
        VfioUserStats::add(&stats.messages);
        let mut header = message.header;
        let wanted = header.flags.get() & flags::NO_REPLY == 0;
        reply.clear();
        reply.resize(size_of::<Header>(), 0);
        let result = session.execute(&message, &mut descriptors, &mut reply);
        header.flags = flags::REPLY.into();
        header.error = 0.into();
        if let Err(errno) = result {
            VfioUserStats::add(&stats.errors);
            if !silent {
                // Only the first: a client must not fill the log.
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
