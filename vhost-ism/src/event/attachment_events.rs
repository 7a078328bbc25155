//! Attachments and detachments of DMBs that wait for event buffers.

use std::collections::VecDeque;

/// A device that attached or detached a DMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentEvent {
    /// First chunk of the DMB in the window of the receiver.
    pub chunk: u32,
    /// The device.
    pub devid: u64,
    /// Number of devices that have the DMB attached afterwards.
    pub peers: u64,
    /// Whether it attached.
    pub attached: bool,
}

/// The events of one receiver, oldest first.
///
/// An event and a later opposite one of the same device cancel out. So there are at most two for each device that has a
/// DMB attached or had it when the receiver last took an event, however often it attaches: each is paid for with a
/// place in the DMB table of that device.
#[derive(Debug, Default)]
pub struct AttachmentEvents(VecDeque<AttachmentEvent>);

impl AttachmentEvents {
    /// Adds an event, or cancels the opposite one.
    pub fn push(&mut self, event: AttachmentEvent) {
        let is_opposite = |earlier: &AttachmentEvent| {
            (earlier.chunk, earlier.devid) == (event.chunk, event.devid) && earlier.attached != event.attached
        };
        let Some(index) = self.0.iter().position(is_opposite) else {
            self.0.push_back(event);
            return;
        };
        self.0.remove(index);
        // Those in between describe a history without the two.
        for later in self.0.iter_mut().skip(index).filter(|later| later.chunk == event.chunk) {
            match event.attached {
                true => later.peers += 1,
                false => later.peers -= 1,
            }
        }
    }

    /// Returns the oldest event.
    pub fn front(&self) -> Option<&AttachmentEvent> {
        self.0.front()
    }

    /// Removes the oldest event.
    pub fn pop_front(&mut self) {
        self.0.pop_front();
    }

    /// Removes the events of a DMB that the receiver has detached.
    pub fn forget(&mut self, chunk: u32) {
        self.0.retain(|event| event.chunk != chunk);
    }

    /// Removes all events.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(chunk: u32, devid: u64, peers: u64, attached: bool) -> AttachmentEvent {
        AttachmentEvent {
            chunk,
            devid,
            peers,
            attached,
        }
    }

    #[test]
    fn opposite_events_cancel_out_and_the_counts_stay_a_history() {
        let mut events = AttachmentEvents::default();
        for event in [
            event(1, 7, 1, true),
            event(2, 7, 1, true),
            event(1, 8, 2, true),
            event(1, 9, 3, true),
            event(1, 7, 2, false),
        ] {
            events.push(event);
        }
        assert_eq!(
            events.0,
            [event(2, 7, 1, true), event(1, 8, 1, true), event(1, 9, 2, true)]
        );
        events.forget(1);
        assert_eq!(events.0, [event(2, 7, 1, true)]);
        events.pop_front();
        // The receiver knows of 7, and three.
        for event in [event(1, 7, 2, false), event(1, 8, 1, false), event(1, 7, 2, true)] {
            events.push(event);
        }
        assert_eq!(events.0, [event(1, 8, 2, false)]);
    }

    #[test]
    fn a_device_that_comes_and_goes_leaves_nothing() {
        let mut events = AttachmentEvents::default();
        for devid in 0..10_000 {
            events.push(event(1, devid, 1, true));
            events.push(event(1, devid, 0, false));
        }
        assert_eq!(events.len(), 0);
    }
}
