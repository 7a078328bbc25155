//! The outstanding messages of a queue pair: read and not completed.

use std::ops::{Index, IndexMut};

use serde::Serializer;

use super::message::Message;

/// Messages, oldest first. Places are reused: a message is large.
#[derive(Debug, Default)]
pub struct Messages {
    /// A ring; its length is zero or a power of two.
    places: Vec<Message>,
    first: usize,
    length: usize,
}

impl Messages {
    /// Initial length of the ring.
    const FEW: usize = 8;

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Serializes the number of messages.
    pub(super) fn serialize_length<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.length as u64)
    }

    /// Appends a blank message for the WQE at `index`.
    pub fn add(&mut self, index: u16) -> &mut Message {
        if self.length == self.places.len() {
            self.places.rotate_left(self.first);
            self.first = 0;
            let more = self.length.max(Self::FEW);
            self.places.resize_with(self.length + more, Message::default);
        }
        let place = self.place(self.length);
        self.length += 1;
        let message = &mut self.places[place];
        message.begin(index);
        message
    }

    /// Removes the `count` oldest messages, or all if there are fewer.
    pub fn remove(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length -= count;
        // An empty ring restarts at its first place: what was used last is still in the CPU's caches.
        self.first = if self.length == 0 { 0 } else { self.place(count) };
    }

    /// Removes the newest message.
    pub fn remove_last(&mut self) {
        self.length = self.length.saturating_sub(1);
    }

    /// The oldest message.
    pub fn first_mut(&mut self) -> Option<&mut Message> {
        self.iter_mut().next()
    }

    /// The oldest message.
    pub fn first(&self) -> Option<&Message> {
        self.iter().next()
    }

    /// The latest message.
    pub fn last(&self) -> Option<&Message> {
        self.places.get(self.place(self.length.checked_sub(1)?))
    }

    /// The latest message.
    pub fn last_mut(&mut self) -> Option<&mut Message> {
        let place = self.place(self.length.checked_sub(1)?);
        self.places.get_mut(place)
    }

    /// Iterates over the messages, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        let (ahead, behind) = self.places.split_at(self.first);
        behind.iter().chain(ahead).take(self.length)
    }

    /// Iterates over the messages, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        let (ahead, behind) = self.places.split_at_mut(self.first);
        behind.iter_mut().chain(ahead).take(self.length)
    }

    /// The place of a message, or of the next one to be added.
    fn place(&self, index: usize) -> usize {
        (self.first + index) & self.places.len().wrapping_sub(1)
    }
}

impl Index<usize> for Messages {
    type Output = Message;

    fn index(&self, index: usize) -> &Message {
        debug_assert!(index < self.length);
        &self.places[self.place(index)]
    }
}

impl IndexMut<usize> for Messages {
    fn index_mut(&mut self, index: usize) -> &mut Message {
        debug_assert!(index < self.length);
        let place = self.place(index);
        &mut self.places[place]
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Data;
    use super::*;

    fn indexes(messages: &Messages) -> Vec<u16> {
        messages.iter().map(|message| message.index).collect()
    }

    #[test]
    fn they_stay_in_order_while_the_ring_turns_and_grows() {
        let mut messages = Messages::default();
        let mut expected = std::collections::VecDeque::new();
        let mut next = 0;
        for step in 0..200_usize {
            for _ in 0..step % 7 {
                messages.add(next).done = true;
                expected.push_back(next);
                next += 1;
            }
            let gone = step % 5;
            messages.remove(gone);
            expected.drain(..gone.min(expected.len()));
            assert_eq!(indexes(&messages), Vec::from(expected.clone()));
            assert_eq!(messages.first().map(|message| message.index), expected.front().copied());
            assert_eq!(
                messages.last_mut().map(|message| message.index),
                expected.back().copied()
            );
            for (at, index) in expected.iter().enumerate() {
                assert_eq!(messages[at].index, *index);
            }
            assert_eq!(messages.iter_mut().count(), expected.len());
        }
        assert!(messages.len() > Messages::FEW, "it did not grow");
    }

    #[test]
    fn a_place_that_is_used_again_remembers_nothing() {
        let mut messages = Messages::default();
        for _ in 0..Messages::FEW {
            let message = messages.add(1);
            message.push_data(Data::Inline(&[1; 100]));
            (message.length, message.packets, message.responses, message.done) = (1, 2, 3, true);
            message.inline_response = Some(vec![1]);
            message.xrc_srqn = Some(4);
        }
        messages.remove(Messages::FEW);
        let message = messages.add(2);
        assert_eq!(message.data.parts().count(), 0);
        assert_eq!(
            (message.length, message.packets, message.responses, message.done),
            (0, 0, 0, false)
        );
        assert_eq!((message.inline_response.as_ref(), message.xrc_srqn), (None, None));
    }
}
