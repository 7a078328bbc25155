//! State of the connection to an agent, and the thread that receives from it.
//!
//! Each start of the agent begins a session with an epoch of its own; frames of another epoch are ignored.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};

use guest_agent::frame::{Decoder, Frame, FrameError, PREAMBLE};
use guest_agent::{Exit, Hello, Reply, Request, WINDOW};

use crate::sync::lock;

/// Limit on the kept output of a command; excess is read and discarded.
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

pub(super) const CLOSED: &str = "the connection to its agent has closed";
pub(super) const REBOOTED: &str = "the guest has rebooted";

/// A connection, shared by its users and the receiving thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) outgoing: Sender<Vec<u8>>,
}

/// State of the sessions and channels.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) closed: bool,
    /// Number of the last attach request; only the answer to it is accepted.
    nonce: u64,
    pub(super) session: Option<Session>,
    next_channel: u32,
    pub(super) channels: HashMap<u32, ChannelState>,
    /// Protocol errors.
    pub(super) reports: Vec<String>,
}

/// A session with the agent.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) epoch: u32,
    pub(super) hello: Hello,
}

/// Data received on a channel, and its outcome.
#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    /// Process id of the command, once started.
    pub(crate) pid: Option<u32>,
    /// Standard output, or the content of a file.
    pub(crate) stdout: Vec<u8>,
    /// Standard error.
    pub(crate) stderr: Vec<u8>,
    /// Bytes of `stdout` already returned to the reader.
    pub(crate) lines_at: usize,
    /// Outcome, once ended.
    pub(crate) end: Option<End>,
    /// Bytes of data the agent accepts.
    pub(super) credit: usize,
}

/// Outcome of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The command exited.
    Exit(Exit),
    /// The file transfer is complete; its length in bytes.
    Done(u64),
    /// The agent refused the request.
    Refused(String),
    /// The guest or the connection is gone, with the reason.
    Lost(String),
}

impl State {
    /// Requests a new session.
    pub(super) fn attach(&mut self, outgoing: &Sender<Vec<u8>>) {
        self.nonce += 1;
        self.session = None;
        let frame = Frame {
            epoch: 0,
            channel: 0,
            body: Request::Attach(self.nonce),
        };
        // An earlier user of the connection may have left in the middle of a frame.
        let _ = outgoing.send(vec![0; PREAMBLE]);
        let _ = outgoing.send(frame.encode());
    }

    /// Opens a channel with a number not in use and returns the number.
    pub(super) fn new_channel(&mut self) -> u32 {
        self.next_channel = self.next_channel.wrapping_add(1).max(1);
        let number = self.next_channel;
        self.channels.insert(
            number,
            ChannelState {
                credit: WINDOW as usize,
                ..ChannelState::default()
            },
        );
        number
    }

    /// Loses the channels of the guest's last boot, and requests a session of the next.
    pub(super) fn reboot(&mut self, outgoing: &Sender<Vec<u8>>) {
        self.lose_all(REBOOTED);
        self.attach(outgoing);
    }

    fn lose_all(&mut self, why: &str) {
        for channel in self.channels.values_mut() {
            if channel.end.is_none() {
                channel.end = Some(End::Lost(why.to_owned()));
            }
        }
    }
}

impl Shared {
    /// Receives frames until the connection closes.
    pub(super) fn read_all(&self, mut stream: UnixStream) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            decoder.push(&buffer[..count]);
            let mut state = lock(&self.state);
            while let Some(frame) = decoder.next_frame() {
                match frame {
                    Ok(frame) => self.receive(&mut state, frame),
                    Err(FrameError::Skipped(_)) if state.session.is_none() => {
                        // The rest of a frame cut off by a reboot.
                    }
                    Err(error) => state.reports.push(error.to_string()),
                }
            }
            self.changed.notify_all();
        }
        let mut state = lock(&self.state);
        state.closed = true;
        state.session = None;
        state.lose_all(CLOSED);
        self.changed.notify_all();
    }

    fn receive(&self, state: &mut State, frame: Frame<Reply>) {
        match frame.body {
            Reply::Booted(_) => {
                state.reboot(&self.outgoing);
                return;
            }
            Reply::Hello(hello) => {
                if hello.nonce == state.nonce {
                    state.session = Some(Session {
                        epoch: frame.epoch,
                        hello,
                    });
                }
                return;
            }
            _ => {}
        }
        if state.session.as_ref().map(|session| session.epoch) != Some(frame.epoch) {
            return;
        }
        if let (0, Reply::Error(report)) = (frame.channel, &frame.body) {
            state.reports.push(report.clone());
            return;
        }
        let Some(channel) = state.channels.get_mut(&frame.channel) else {
            return;
        };
        let received = match frame.body {
            Reply::Stdout(data) => {
                keep(&mut channel.stdout, &data, OUTPUT_LIMIT);
                data.len()
            }
            Reply::Stderr(data) => {
                keep(&mut channel.stderr, &data, OUTPUT_LIMIT);
                data.len()
            }
            Reply::Data(data) => {
                keep(&mut channel.stdout, &data, usize::MAX);
                data.len()
            }
            Reply::Credit(bytes) => {
                channel.credit += bytes as usize;
                0
            }
            Reply::Started(pid) => {
                channel.pid = Some(pid);
                0
            }
            Reply::Exit(exit) => {
                channel.end = Some(End::Exit(exit));
                0
            }
            Reply::Done(length) => {
                channel.end = Some(End::Done(length));
                0
            }
            Reply::Error(reason) => {
                channel.end = Some(End::Refused(reason));
                0
            }
            Reply::Booted(_) | Reply::Hello(_) => 0,
        };
        if received > 0 {
            let frame = Frame {
                epoch: frame.epoch,
                channel: frame.channel,
                body: Request::Credit(received as u32),
            };
            let _ = self.outgoing.send(frame.encode());
        }
    }
}

fn keep(buffer: &mut Vec<u8>, data: &[u8], limit: usize) {
    let room = limit.saturating_sub(buffer.len());
    buffer.extend_from_slice(&data[..data.len().min(room)]);
}
