//! The harness's side of the protocol with a guest's agent.

mod channel;
mod session;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use guest_agent::frame::MAX_PAYLOAD;
use guest_agent::{CHUNK, Hello, PutRequest, Request, SpawnRequest};

use crate::deadline::Deadline;
use crate::error::{Doing, Error, Result};
use crate::sync::{lock, wait_for};

pub(crate) use channel::Channel;
use session::{CLOSED, Shared, State};
pub(crate) use session::{ChannelState, End};

/// Size limit of a request without data, leaving room for the encoding around it.
const REQUEST_LIMIT: usize = MAX_PAYLOAD / 2;

/// A connection to an agent, kept across reboots of the guest.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    stream: UnixStream,
}

impl Control {
    /// Attaches to the agent at the other end of `stream`, which may start later.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let (outgoing, frames) = mpsc::channel::<Vec<u8>>();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            outgoing,
        });
        let clone = || stream.try_clone().doing(|| "clone a socket".to_owned());
        let (reader, mut writer) = (clone()?, clone()?);
        thread::spawn(move || {
            for frame in frames {
                if writer.write_all(&frame).is_err() {
                    break;
                }
            }
        });
        lock(&shared.state).attach(&shared.outgoing);
        let receiver = Arc::clone(&shared);
        thread::spawn(move || receiver.read_all(reader));
        Ok(Self { shared, stream })
    }

    /// Waits for an agent whose boot id is not `other_than`.
    pub fn wait_boot(&self, other_than: Option<&str>, timeout: Duration) -> Result<Hello> {
        let deadline = Deadline::after(timeout);
        let hello = self.wait(deadline, |state| match &state.session {
            Some(session) if other_than != Some(&session.hello.boot_id) => Some(Ok(session.hello.clone())),
            _ if state.closed => Some(Err(Error::Lost {
                what: "waiting for the guest's agent".to_owned(),
                why: CLOSED.to_owned(),
            })),
            _ => None,
        });
        hello.unwrap_or_else(|| {
            Err(deadline.missed(match other_than {
                Some(_) => "the guest's agent after a reboot",
                None => "the guest's agent",
            }))
        })
    }

    /// Gives up what runs in a guest that has been reset, and waits for its next agent: long before that greets, or if
    /// it never does.
    pub(crate) fn rebooted(&self) {
        lock(&self.shared.state).reboot(&self.shared.outgoing);
        self.shared.changed.notify_all();
    }

    /// Returns the attached agent's greeting, if there is an agent.
    pub fn hello(&self) -> Option<Hello> {
        let state = lock(&self.shared.state);
        state.session.as_ref().map(|session| session.hello.clone())
    }

    /// Returns the protocol errors reported by the agent or found in its frames; none is expected.
    pub fn reports(&self) -> Vec<String> {
        lock(&self.shared.state).reports.clone()
    }

    /// Closes the connection.
    pub(crate) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Starts a command in the guest.
    pub(crate) fn spawn(&self, request: &SpawnRequest) -> Result<Channel> {
        let length: usize = request.argv.iter().map(String::len).sum();
        if length > REQUEST_LIMIT {
            let reason = format!("a command line of {length} bytes is too long");
            return Err(Error::Agent(reason));
        }
        self.open(Request::Spawn(request.clone()), "starting a command")
    }

    /// Writes a file in the guest; returns its length.
    pub(crate) fn put(&self, mut content: impl Read, path: &str, mode: u32, timeout: Duration) -> Result<u64> {
        let deadline = Deadline::after(timeout);
        let what = format!("writing the guest's {path}");
        let channel = self.open(
            Request::Put(PutRequest {
                path: path.to_owned(),
                mode,
            }),
            &what,
        )?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => channel.send_data(&buffer[..count], deadline, &what)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing(|| format!("read the content for the guest's {path}")),
            }
        }
        channel.send(Request::End);
        channel.finish_transfer(deadline, &what).map(|state| state.1)
    }

    /// Reads a file of the guest.
    pub(crate) fn get(&self, path: &str, timeout: Duration) -> Result<Vec<u8>> {
        let what = format!("reading the guest's {path}");
        let channel = self.open(Request::Get(path.to_owned()), &what)?;
        let (content, length) = channel.finish_transfer(Deadline::after(timeout), &what)?;
        if content.len() as u64 == length {
            Ok(content)
        } else {
            Err(Error::Lost {
                what,
                why: format!("{} of {length} bytes arrived", content.len()),
            })
        }
    }

    /// Kills all processes in the guest except the agent.
    pub(crate) fn kill_all(&self, timeout: Duration) -> Result<()> {
        let what = "killing all of the guest's processes";
        let channel = self.open(Request::KillAll, what)?;
        channel.finish_transfer(Deadline::after(timeout), what).map(drop)
    }

    /// Requests power-off of the guest, which does not answer.
    pub(crate) fn power_off(&self) -> Result<()> {
        self.open(Request::PowerOff, "powering off the guest")?.forget();
        Ok(())
    }

    fn open(&self, request: Request, what: &str) -> Result<Channel> {
        let mut state = lock(&self.shared.state);
        let Some(session) = &state.session else {
            return Err(Error::Lost {
                what: what.to_owned(),
                why: if state.closed { CLOSED } else { "there is no agent" }.to_owned(),
            });
        };
        let epoch = session.epoch;
        let number = state.new_channel();
        let channel = Channel::new(Arc::clone(&self.shared), epoch, number);
        channel.send(request);
        Ok(channel)
    }

    fn wait<R>(&self, deadline: Deadline, look: impl FnMut(&mut State) -> Option<R>) -> Option<R> {
        wait_for(&self.shared.state, &self.shared.changed, deadline, look)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
