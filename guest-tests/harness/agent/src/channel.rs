//! Channels: replies of a command or transfer, and the events for it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guest_agent::frame::{Frame, PREAMBLE};
use guest_agent::{Exit, Reply};
use rustix::event::{EventfdFlags, eventfd};

/// An event of one channel.
#[derive(Debug)]
pub enum Event {
    /// Bytes from the harness.
    Data(Vec<u8>),
    /// End of the bytes from the harness.
    End,
    /// Credit for this many more bytes.
    Credit(u32),
    /// A signal for the command.
    Signal(i32),
    /// The command has ended.
    Exited(Exit),
    /// The harness cancelled the channel.
    Cancel,
}

/// The sending end of a channel's events.
#[derive(Debug, Clone)]
pub struct Mailbox {
    events: Sender<Event>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    /// Delivers `event`; dropped if the channel is finished.
    pub fn post(&self, event: Event) {
        if self.events.send(event).is_ok() {
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// The receiving end of a [`Mailbox`].
#[derive(Debug)]
pub struct Inbox {
    events: Receiver<Event>,
    wake: Arc<OwnedFd>,
}

impl Inbox {
    /// Creates a mailbox and its receiving end.
    pub fn new() -> std::io::Result<(Mailbox, Self)> {
        let (sender, events) = mpsc::channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mailbox = Mailbox {
            events: sender,
            wake: Arc::clone(&wake),
        };
        Ok((mailbox, Self { events, wake }))
    }

    /// Returns the next event, if there is one.
    pub fn try_next(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event.
    pub fn next(&self) -> Event {
        self.events.recv().unwrap_or(Event::Cancel)
    }

    /// Resets [`Inbox::wake`] until the next event.
    pub fn acknowledge(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }

    /// Returns a descriptor that is readable when there may be an event.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The open channels.
#[derive(Debug, Default)]
pub struct Channels(Mutex<HashMap<(u32, u32), Mailbox>>);

impl Channels {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u32, u32), Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel; returns `false` if it is open already.
    pub fn open(&self, epoch: u32, number: u32, mailbox: Mailbox) -> bool {
        let mut channels = self.lock();
        if channels.contains_key(&(epoch, number)) {
            return false;
        }
        channels.insert((epoch, number), mailbox);
        true
    }

    /// Delivers an event to a channel, if it is open.
    pub fn post(&self, epoch: u32, number: u32, event: Event) {
        if let Some(mailbox) = self.lock().get(&(epoch, number)) {
            mailbox.post(event);
        }
    }

    /// Cancels all channels.
    pub fn cancel_all(&self) {
        for (_, mailbox) in self.lock().drain() {
            mailbox.post(Event::Cancel);
        }
    }

    fn close(&self, epoch: u32, number: u32) {
        self.lock().remove(&(epoch, number));
    }
}

/// The replying end of an open channel; dropping it closes the channel.
#[derive(Debug)]
pub struct Channel {
    epoch: u32,
    number: u32,
    outbox: Outbox,
    channels: Arc<Channels>,
    /// Whether the number is free again, and possibly reused.
    closed: bool,
}

impl Channel {
    /// Creates the replying end of channel `number` in session `epoch`.
    pub fn new(epoch: u32, number: u32, outbox: Outbox, channels: Arc<Channels>) -> Self {
        Self {
            epoch,
            number,
            outbox,
            channels,
            closed: false,
        }
    }

    /// Sends a reply on this channel.
    pub fn send(&self, reply: Reply) {
        self.outbox.send(self.epoch, self.number, reply);
    }

    /// Closes the channel and sends its last reply.
    pub fn finish(mut self, reply: Reply) {
        self.channels.close(self.epoch, self.number);
        self.closed = true;
        self.send(reply);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if !self.closed {
            self.channels.close(self.epoch, self.number);
        }
    }
}

/// The queue of frames to write; bounded by credits for data, and by the number of requests for the rest.
#[derive(Debug, Clone)]
pub struct Outbox(Sender<Vec<u8>>);

impl Outbox {
    /// Creates a queue and its receiving end.
    pub fn new() -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Queues the preamble, which completes a frame that an earlier boot left unfinished.
    pub fn send_preamble(&self) {
        let _ = self.0.send(vec![0; PREAMBLE]);
    }

    /// Queues a reply.
    pub fn send(&self, epoch: u32, channel: u32, body: Reply) {
        let frame = Frame { epoch, channel, body };
        let _ = self.0.send(frame.encode());
    }
}
