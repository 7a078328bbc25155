//! Reads requests and dispatches them to their channels.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use guest_agent::frame::{Decoder, Frame, FrameError};
use guest_agent::{Hello, Reply, Request};
use rustix::system::{RebootCommand, reboot, uname};

use crate::channel::{Channel, Channels, Event, Inbox, Outbox};
use crate::port::Port;
use crate::reaper::Children;
use crate::{job, reaper, transfer};

/// The session with the harness.
pub struct Session {
    port: Arc<Port>,
    children: Arc<Children>,
    channels: Arc<Channels>,
    outbox: Outbox,
    epoch: u32,
}

impl Session {
    /// Creates a session on `port`, and starts its writer.
    pub fn new(port: Arc<Port>, children: Arc<Children>) -> Self {
        let (outbox, frames) = Outbox::new();
        let writer = Arc::clone(&port);
        thread::spawn(move || write_forever(&writer, &frames));
        Self {
            port,
            children,
            channels: Arc::default(),
            outbox,
            // Random, so that an earlier boot is unlikely to have used it.
            epoch: RandomState::new().build_hasher().finish() as u32,
        }
    }

    /// Serves requests as long as the machine runs.
    pub fn serve_forever(mut self) -> ! {
        self.outbox.send_preamble();
        self.outbox.send(0, 0, Reply::Booted(hello(0)));
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.port.read(&mut buffer) {
                Ok(0) => decoder = Decoder::new(),
                Ok(count) => {
                    decoder.push(&buffer[..count]);
                    while let Some(frame) = decoder.next_frame() {
                        match frame {
                            Ok(frame) => self.serve(frame),
                            Err(error) => self.report(&error),
                        }
                    }
                }
                Err(error) => {
                    complain!("cannot read from the harness: {error}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn report(&self, error: &FrameError) {
        let text = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        complain!("{text}");
        match error {
            FrameError::Body { epoch, channel, .. } if *epoch == self.epoch => {
                self.outbox.send(self.epoch, *channel, Reply::Error(text));
            }
            FrameError::Body { .. } => {}
            FrameError::Skipped(_) => self.outbox.send(self.epoch, 0, Reply::Error(text)),
        }
    }

    fn serve(&mut self, frame: Frame<Request>) {
        let Frame {
            epoch,
            channel: number,
            body,
        } = frame;
        if let Request::Attach(nonce) = body {
            self.attach(nonce);
            return;
        }
        if epoch != self.epoch {
            return;
        }
        let event = match body {
            Request::Spawn(request) => {
                let children = Arc::clone(&self.children);
                self.open(number, move |channel, inbox, mailbox| {
                    job::run(&request, channel, inbox, mailbox, &children);
                });
                return;
            }
            Request::Put(request) => {
                self.open(number, move |channel, inbox, _| {
                    transfer::receive(&request, channel, &inbox);
                });
                return;
            }
            Request::Get(path) => {
                self.open(number, move |channel, inbox, _| {
                    transfer::send(&path, channel, &inbox);
                });
                return;
            }
            Request::KillAll => {
                self.open(number, |channel, _, _| {
                    channel.finish(match reaper::kill_all() {
                        Ok(()) => Reply::Done(0),
                        Err(error) => Reply::Error(error.to_string()),
                    });
                });
                return;
            }
            Request::PowerOff => {
                self.power_off();
                return;
            }
            Request::Attach(_) => return,
            Request::Data(data) => Event::Data(data),
            Request::End => Event::End,
            Request::Credit(bytes) => Event::Credit(bytes),
            Request::Signal(signal) => Event::Signal(signal),
            Request::Cancel => Event::Cancel,
        };
        self.channels.post(epoch, number, event);
    }

    fn attach(&mut self, nonce: u64) {
        self.channels.cancel_all();
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.outbox.send(self.epoch, 0, Reply::Hello(hello(nonce)));
    }

    /// Starts a thread for a new channel.
    fn open(&self, number: u32, serve: impl FnOnce(Channel, Inbox, crate::channel::Mailbox) + Send + 'static) {
        let refuse = |reason: String| {
            self.outbox.send(self.epoch, number, Reply::Error(reason));
        };
        let (mailbox, inbox) = match Inbox::new() {
            Ok(ends) => ends,
            Err(error) => return refuse(format!("the agent cannot open a channel: {error}")),
        };
        if number == 0 || !self.channels.open(self.epoch, number, mailbox.clone()) {
            return refuse(format!("channel {number} is not free"));
        }
        let channel = Channel::new(self.epoch, number, self.outbox.clone(), Arc::clone(&self.channels));
        let thread = thread::Builder::new().spawn(move || serve(channel, inbox, mailbox));
        if let Err(error) = thread {
            refuse(format!("the agent cannot start a thread: {error}"));
        }
    }

    fn power_off(&self) {
        if std::process::id() != 1 {
            let reason = "only process 1 can power off the machine";
            self.outbox.send(self.epoch, 0, Reply::Error(reason.to_owned()));
            return;
        }
        rustix::fs::sync();
        if let Err(error) = reboot(RebootCommand::PowerOff) {
            let reason = format!("cannot power off the machine: {error}");
            self.outbox.send(self.epoch, 0, Reply::Error(reason));
        }
    }
}

fn write_forever(port: &Port, frames: &Receiver<Vec<u8>>) {
    for frame in frames {
        if let Err(error) = port.write_all(&frame) {
            complain!("cannot write to the harness: {error}");
        }
    }
}

fn hello(nonce: u64) -> Hello {
    let name = uname();
    Hello {
        nonce,
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim_end()
            .to_owned(),
        release: name.release().to_string_lossy().into_owned(),
        hostname: name.nodename().to_string_lossy().into_owned(),
    }
}
