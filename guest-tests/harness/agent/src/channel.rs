//! What a command or a transfer has of its channel: a way to answer, and the events meant for it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guest_agent::frame::{Frame, PREAMBLE};
use guest_agent::{Exit, Reply};
use rustix::event::{EventfdFlags, eventfd};

/// Something that concerns one channel.
#[derive(Debug)]
pub enum Event {
    /// Bytes from the harness.
    Data(Vec<u8>),
    /// No more bytes from the harness.
    End,
    /// This many more bytes may be sent.
    Credit(u32),
    /// A signal for the command.
    Signal(i32),
    /// The command has ended.
    Exited(Exit),
    /// The harness wants to hear no more of it.
    Cancel,
}

/// Delivers events to whoever runs a channel.
#[derive(Debug, Clone)]
pub struct Mailbox {
    events: Sender<Event>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    /// Delivers `event`; one for a channel that is done is lost, as it should be.
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
    /// A mailbox and its receiving end.
    pub fn new() -> std::io::Result<(Mailbox, Self)> {
        let (sender, events) = mpsc::channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mailbox = Mailbox {
            events: sender,
            wake: Arc::clone(&wake),
        };
        Ok((mailbox, Self { events, wake }))
    }

    /// The next event, if one is there.
    pub fn try_next(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event.
    pub fn next(&self) -> Event {
        self.events.recv().unwrap_or(Event::Cancel)
    }

    /// Makes [`Inbox::wake`] wait for events that are yet to come.
    pub fn acknowledge(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }

    /// Readable when an event may be there.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The channels in use.
#[derive(Debug, Default)]
pub struct Channels(Mutex<HashMap<(u32, u32), Mailbox>>);

impl Channels {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u32, u32), Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a channel into use; `false` if it already is.
    pub fn open(&self, epoch: u32, number: u32, mailbox: Mailbox) -> bool {
        let mut channels = self.lock();
        if channels.contains_key(&(epoch, number)) {
            return false;
        }
        channels.insert((epoch, number), mailbox);
        true
    }

    /// Delivers an event to a channel, if it is in use.
    pub fn post(&self, epoch: u32, number: u32, event: Event) {
        if let Some(mailbox) = self.lock().get(&(epoch, number)) {
            mailbox.post(event);
        }
    }

    /// Ends everything.
    pub fn cancel_all(&self) {
        for (_, mailbox) in self.lock().drain() {
            mailbox.post(Event::Cancel);
        }
    }

    fn close(&self, epoch: u32, number: u32) {
        self.lock().remove(&(epoch, number));
    }
}

/// Answers on one channel; the channel is free again when this is dropped.
#[derive(Debug)]
pub struct Channel {
    epoch: u32,
    number: u32,
    outbox: Outbox,
    channels: Arc<Channels>,
    /// Whether the number is free again, and may already be another channel's.
    closed: bool,
}

impl Channel {
    /// Answers on channel `number` of session `epoch`.
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

    /// Sends the last reply on this channel.
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

/// The queue of frames to write. Credits bound the data in it, and requests the rest.
#[derive(Debug, Clone)]
pub struct Outbox(Sender<Vec<u8>>);

impl Outbox {
    /// A queue and its receiving end.
    pub fn new() -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Queues what ends a frame that an earlier boot has left unfinished.
    pub fn send_preamble(&self) {
        let _ = self.0.send(vec![0; PREAMBLE]);
    }

    /// Queues a reply.
    pub fn send(&self, epoch: u32, channel: u32, body: Reply) {
        let frame = Frame { epoch, channel, body };
        let _ = self.0.send(frame.encode());
    }
}
