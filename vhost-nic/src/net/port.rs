//! What sends and receives Ethernet frames.

use std::borrow::Cow;

use super::Payload;
use crate::engine::offload::parse::FrameView;
use crate::roce;

/// A frame on its way, without preamble and frame check sequence. Its bytes are complete: checksums filled in, at most the MTU long.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The bytes, from the destination address on. Those of a RoCE packet end where its payload begins, if that travels by reference.
    pub bytes: &'a [u8],
    /// The payload of a RoCE packet that travels by reference. Padding and ICRC, which follow it, are made only where a frame leaves.
    pub payload: Option<&'a Payload>,
}

impl<'a> Frame<'a> {
    /// A frame whose bytes are all there.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, payload: None }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        let tail = self
            .payload
            .map_or(0, |payload| payload.len().next_multiple_of(4) + roce::ICRC_LENGTH);
        self.bytes.len() + tail
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All its bytes, for who cannot follow references. None if the payload is gone.
    pub fn to_bytes(&self) -> Option<Cow<'a, [u8]>> {
        let Some(payload) = self.payload else {
            return Some(Cow::Borrowed(self.bytes));
        };
        let mut tail = Vec::with_capacity(payload.len());
        payload.append_to(&mut tail).ok()?;
        let head = FrameView::new(self.bytes)?;
        let mut bytes = Vec::with_capacity(self.len());
        roce::icrc::append(&head, [&tail[..]], &mut bytes).then_some(Cow::Owned(bytes))
    }
}

/// Something a switch can send frames to.
///
/// Its methods are called from the threads of the senders, many at a time, with no lock of the switch held: they may send in turn.
pub trait Port: Send + Sync {
    /// Takes a frame. What cannot be taken is dropped and counted by the port.
    fn receive(&self, frame: Frame<'_>);

    /// The cable between the port and the switch was plugged in or pulled.
    fn cable_changed(&self, _plugged: bool) {}
}
