//! Batches: packets that are made before the first of them is sent.

use std::cell::Cell;

use smallvec::SmallVec;

use super::super::context::Context;
use super::super::egress;
use crate::hca::nic_event::{self, NicEvent};
use crate::net::{Burst, Frame, FrameNumber, Payload, QueueKind, Sender, SuperPacket};
use crate::roce::packet::Packet;

/// Maximum number of super-packets in a batch. With 32, the work per batch was still an eighth of all work for messages
/// of 64 bytes.
pub(super) const SUPER_PACKETS: usize = 128;
/// Approximate limit on the payload of a batch in bytes. Messages complete only after the batch has arrived.
pub(super) const LENGTH: usize = 1 << 20;

/// Super-packets of one queue pair that are about to be sent.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    context: &'a Context,
    /// Number of the queue pair.
    number: u32,
    /// The super-packets of the batch, followed by those of earlier batches, whose places are reused: super-packets are
    /// large.
    places: Vec<SuperPacket<'a>>,
    count: usize,
    /// Number of super-packets in the batch that was sent last.
    sent: usize,
    /// Bytes of payload.
    length: usize,
}

impl<'a> Batch<'a> {
    pub fn new(context: &'a Context, number: u32) -> Self {
        Self {
            context,
            number,
            places: Vec::new(),
            count: 0,
            sent: 0,
            length: 0,
        }
    }

    /// Makes room for `count` super-packets, or for as many as a batch can hold: growing one by one moves them.
    pub fn reserve(&mut self, count: usize) {
        let missing = count.min(SUPER_PACKETS).saturating_sub(self.places.len());
        self.places.reserve_exact(missing);
    }

    pub fn is_full(&self) -> bool {
        self.count >= SUPER_PACKETS || self.length >= LENGTH
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn super_packets(&mut self) -> &mut [SuperPacket<'a>] {
        &mut self.places[..self.count]
    }

    /// Adds a super-packet, of the send WQE at `wqe` unless it is a response. `fill` adds its payload, which may refer
    /// to the memory of the engine's guest; if `fill` fails, nothing is added.
    pub fn push<E>(
        &mut self,
        head: Packet,
        mtu: usize,
        wqe: Option<u16>,
        fill: impl FnOnce(&mut Payload<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let sender = Some(Sender {
            kind: QueueKind::Qp,
            queue: self.number,
            wqe,
        });
        if self.count == self.places.len() {
            self.places.push(SuperPacket {
                head,
                payload: Payload::of_memory(&self.context.hca.dma, &*self.context.hca),
                mtu,
                sender,
                number: Cell::default(),
            });
        } else {
            let super_packet = &mut self.places[self.count];
            (super_packet.head, super_packet.mtu, super_packet.sender) = (head, mtu, sender);
            super_packet.number = Cell::default();
            super_packet.payload.clear();
        }
        let payload = &mut self.places[self.count].payload;
        fill(payload)?;
        self.length += payload.len();
        self.count += 1;
        Ok(())
    }

    fn trace(&self) {
        let tracer = self.context.hca.tracer;
        for super_packet in &self.places[..self.count] {
            let (head, length) = (&super_packet.head, super_packet.payload.len() as u32);
            let destination = head.headers.bth.destination_qpn();
            let arguments = || [nic_event::bth(head), destination, length, nic_event::route(head)];
            tracer.record(NicEvent::PacketOut, self.number, arguments);
        }
    }

    /// Sends the super-packets in order and empties the batch. The caller must not hold the queue pair's locks: the
    /// responses may arrive before this returns.
    pub fn send(&mut self) {
        let together = |a: &SuperPacket<'_>, b: &SuperPacket<'_>| {
            let (a, b) = (&a.head.path, &b.head.path);
            a.destination_mac == b.destination_mac && a.source_mac == b.source_mac && a.vlan == b.vlan
        };
        if self.context.hca.tracer.is_on() {
            self.trace();
        }
        for burst in self.places[..self.count].chunk_by(together) {
            let frames: SmallVec<[Frame<'_>; SUPER_PACKETS]> = burst.iter().map(Frame::SuperPacket).collect();
            egress::transmit(self.context, &Burst::new(&frames), None);
        }
        (self.sent, self.count, self.length) = (self.count, 0, 0);
    }

    /// Number of the last packet of a WQE in the batch that was sent last.
    pub fn last_packet_of(&self, wqe: u16) -> FrameNumber {
        let is_of_wqe =
            |super_packet: &&SuperPacket<'_>| super_packet.sender.and_then(|sender| sender.wqe) == Some(wqe);
        let last = self.places[..self.sent].iter().rfind(is_of_wqe);
        last.map_or(FrameNumber::default(), SuperPacket::last_number)
    }
}
