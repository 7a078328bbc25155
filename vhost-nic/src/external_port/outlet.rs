//! Frames between the queue of a port and its peer.

use super::departure::Departure;
use super::join::{Joiner, Offloads, Outgoing};

/// Frames in the hands of the thread that sends to the peer.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    /// Not taken by the peer yet.
    held: Option<Outgoing>,
    /// Not joinable to the frame before.
    next: Option<Vec<u8>>,
}

impl Outlet {
    /// Takes the next frame, joined with those behind it that continue its stream.
    pub fn take(&mut self, departure: &Departure, offloads: Offloads) -> Option<Outgoing> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        let first = self.next.take().or_else(|| departure.pop())?;
        let mut joiner = Joiner::new(first, offloads);
        while joiner.takes_more()
            && let Some(next) = departure.pop()
        {
            if !joiner.join(&next) {
                self.next = Some(next);
                break;
            }
        }
        Some(joiner.finish())
    }

    /// Keeps a frame that the peer does not take yet.
    pub fn hold(&mut self, frame: Outgoing) {
        self.held = Some(frame);
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.held.is_none() && self.next.is_none()
    }

    /// Drops all frames and returns their number.
    pub fn clear(&mut self) -> usize {
        let held = self.held.take().map_or(0, |held| held.frames);
        held + usize::from(self.next.take().is_some())
    }
}
