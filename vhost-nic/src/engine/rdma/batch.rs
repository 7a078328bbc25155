//! Packets that are made before any of them is sent.

use smallvec::SmallVec;

use super::super::transmit;
use super::Engine;
use crate::net::{Frame, Payload, Train};

/// Most trains.
pub(super) const TRAINS: usize = 32;
/// Bytes of payload, about. What is behind them waits for its completion until they have arrived.
pub(super) const LENGTH: usize = 1 << 20;

/// Trains of one queue pair that are about to be sent.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    trains: Vec<Train<'a>>,
    /// Bytes of their payload.
    length: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new() -> Self {
        Self {
            trains: Vec::with_capacity(TRAINS),
            length: 0,
        }
    }

    /// Whether no more is to be added.
    pub(super) fn is_full(&self) -> bool {
        self.trains.len() >= TRAINS || self.length >= LENGTH
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    pub(super) fn trains(&mut self) -> &mut [Train<'a>] {
        &mut self.trains
    }

    pub(super) fn push(&mut self, train: Train<'a>) {
        self.length += train.payload.len();
        self.trains.push(train);
    }

    /// Adds a train whose payload is found in its place: trains are large. If it is not found, the train is not added.
    pub(super) fn push_found<E>(
        &mut self,
        train: Train<'a>,
        find: impl FnOnce(&mut Payload<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.trains.push(train);
        let Some(train) = self.trains.last_mut() else {
            return Ok(());
        };
        let found = find(&mut train.payload);
        match found {
            Ok(()) => self.length += train.payload.len(),
            Err(_) => self.trains.truncate(self.trains.len() - 1),
        }
        found
    }

    /// Sends them, in their order. Nobody may hold the queue pair's locks.
    pub(super) fn send(&mut self, engine: &Engine) {
        let together = |a: &Train<'_>, b: &Train<'_>| {
            let (a, b) = (&a.head.path, &b.head.path);
            a.destination_mac == b.destination_mac && a.source_mac == b.source_mac && a.vlan == b.vlan
        };
        for burst in self.trains.chunk_by(together) {
            let frames: SmallVec<[Frame<'_>; TRAINS]> = burst.iter().map(Frame::Train).collect();
            transmit::transmit(engine, &frames, None);
        }
        self.trains.clear();
        self.length = 0;
    }
}
