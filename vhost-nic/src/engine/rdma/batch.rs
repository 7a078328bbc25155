//! Packets that are made before any of them is sent.

use smallvec::SmallVec;

use super::super::transmit;
use super::Engine;
use crate::net::{Burst, Frame, Payload, SuperPacket};
use crate::roce::packet::Packet;

/// Most super_packets. With 32, what is done once for all of them was still an eighth of the work for messages of 64 bytes.
pub(super) const SUPER_PACKETS: usize = 128;
/// Bytes of payload, about. What is behind them waits for its completion until they have arrived.
pub(super) const LENGTH: usize = 1 << 20;

/// SuperPackets of one queue pair that are about to be sent.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    engine: &'a Engine,
    /// Those that are, and behind them those that were sent, whose places are used again: super_packets are large.
    places: Vec<SuperPacket<'a>>,
    /// How many are to be sent.
    count: usize,
    /// Bytes of their payload.
    length: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            places: Vec::new(),
            count: 0,
            length: 0,
        }
    }

    /// Whether no more is to be added.
    pub(super) fn is_full(&self) -> bool {
        self.count >= SUPER_PACKETS || self.length >= LENGTH
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn super_packets(&mut self) -> &mut [SuperPacket<'a>] {
        &mut self.places[..self.count]
    }

    /// Adds a super_packet with what `fill` makes of its payload, which is empty and of the memory of the engine's guest. If that fails, it is not
    /// added.
    pub(super) fn push<E>(
        &mut self,
        head: Packet,
        mtu: usize,
        fill: impl FnOnce(&mut Payload<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.count == self.places.len() {
            let payload = Payload::of_memory(&self.engine.hca.dma);
            self.places.push(SuperPacket { head, payload, mtu });
        } else {
            let super_packet = &mut self.places[self.count];
            (super_packet.head, super_packet.mtu) = (head, mtu);
            super_packet.payload.clear();
        }
        let payload = &mut self.places[self.count].payload;
        fill(payload)?;
        self.length += payload.len();
        self.count += 1;
        Ok(())
    }

    /// Sends them, in their order. Nobody may hold the queue pair's locks.
    pub(super) fn send(&mut self) {
        let together = |a: &SuperPacket<'_>, b: &SuperPacket<'_>| {
            let (a, b) = (&a.head.path, &b.head.path);
            a.destination_mac == b.destination_mac && a.source_mac == b.source_mac && a.vlan == b.vlan
        };
        for burst in self.places[..self.count].chunk_by(together) {
            let frames: SmallVec<[Frame<'_>; SUPER_PACKETS]> = burst.iter().map(Frame::SuperPacket).collect();
            transmit::transmit(self.engine, &Burst::new(&frames), None);
        }
        (self.count, self.length) = (0, 0);
    }
}
