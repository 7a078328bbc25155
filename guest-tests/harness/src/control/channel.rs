//! The channel of one command or file transfer.

use std::sync::Arc;

use guest_agent::frame::Frame;
use guest_agent::{CHUNK, Request};

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::sync::{lock, wait_for};

use super::session::{ChannelState, End, Shared};

/// A command or file transfer; dropping it cancels the command or transfer.
#[derive(Debug)]
pub(crate) struct Channel {
    shared: Arc<Shared>,
    epoch: u32,
    number: u32,
}

impl Channel {
    pub(super) fn new(shared: Arc<Shared>, epoch: u32, number: u32) -> Self {
        Self { shared, epoch, number }
    }

    /// Sends a request on this channel.
    pub(crate) fn send(&self, body: Request) {
        let frame = Frame {
            epoch: self.epoch,
            channel: self.number,
            body,
        };
        let _ = self.shared.outgoing.send(frame.encode());
    }

    /// Sends data within the credit granted by the agent; drops the rest if the channel has ended.
    pub(crate) fn send_data(&self, data: &[u8], deadline: Deadline, what: &str) -> Result<()> {
        for chunk in data.chunks(CHUNK) {
            let open = self.wait(deadline, |state| {
                if state.end.is_some() {
                    Some(false)
                } else if state.credit >= chunk.len() {
                    state.credit -= chunk.len();
                    Some(true)
                } else {
                    None
                }
            });
            match open {
                Some(true) => self.send(Request::Data(chunk.to_vec())),
                Some(false) => return Ok(()),
                None => return Err(deadline.missed(format!("{what} to make progress"))),
            }
        }
        Ok(())
    }

    /// Waits until `look` returns a value for this channel; `None` at the deadline.
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&mut ChannelState) -> Option<R>,
    ) -> Option<R> {
        wait_for(&self.shared.state, &self.shared.changed, deadline, |state| {
            state.channels.get_mut(&self.number).and_then(&mut look)
        })
    }

    /// Applies `look` to the state of this channel.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut ChannelState) -> R) -> Option<R> {
        lock(&self.shared.state).channels.get_mut(&self.number).map(look)
    }

    /// Waits for the end of a file transfer; returns the content and the length.
    pub(super) fn finish_transfer(&self, deadline: Deadline, what: &str) -> Result<(Vec<u8>, u64)> {
        let end = self.wait(deadline, |state| {
            let end = state.end.clone()?;
            Some((std::mem::take(&mut state.stdout), end))
        });
        match end {
            Some((content, End::Done(length))) => Ok((content, length)),
            Some((_, End::Refused(reason))) => Err(Error::Agent(reason)),
            Some((_, End::Lost(why))) => Err(Error::Lost {
                what: what.to_owned(),
                why,
            }),
            Some((_, End::Exit(_))) => Err(Error::Agent(
                "the guest answered a file transfer as a command".to_owned(),
            )),
            None => Err(deadline.missed(format!("{what} to end"))),
        }
    }

    /// Closes the channel without notifying the agent.
    pub(super) fn forget(self) {
        lock(&self.shared.state).channels.remove(&self.number);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let channel = lock(&self.shared.state).channels.remove(&self.number);
        if channel.is_some_and(|channel| channel.end.is_none()) {
            self.send(Request::Cancel);
        }
    }
}
