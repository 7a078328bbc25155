//! Queue pairs: WQEs in, packets out, and back.
//!
//! A packet is handed over on the thread of its sender, and what answers it comes back on the same thread. So nobody holds a queue pair's
//! lock while a packet of it is on its way. Packets travel in bursts, and those of a message as one super_packet: what many have in common is looked at
//! once.

mod answer;
mod batch;
mod completion;
mod datagram;
mod execute;
mod flush;
mod memory;
mod receive_queue;
mod requester;
mod responder;
mod response;
mod vendor;
mod work;

use log::debug;
use mlx5_prm::queue_entry::EventType;
use smallvec::SmallVec;

use super::Engine;
use crate::frame::view::FrameView;
use crate::hca::qp::{Parameters, Qp, QpState, service};
use crate::hca::srq::event_data;
use crate::net::{Frame, Payload, SuperPacket};
use crate::roce::opcode::Transport;
use crate::roce::packet::Packet;

/// Carries out what is posted to a queue pair.
pub(super) fn run(engine: &Engine, qp: &Qp) {
    match qp.parameters().state {
        QpState::Error => flush::run(engine, qp),
        QpState::ReadyToSend => requester::run(engine, qp),
        _ => {}
    }
}

/// Whether more is posted than was read.
pub(super) fn has_posted(engine: &Engine, qp: &Qp) -> bool {
    let Some(ring) = &qp.send_queue else { return false };
    let requester = qp.requester.lock();
    // What cannot go on yet is told of when it can.
    let waits = requester.not_before.is_some() || requester.current < requester.messages.len();
    let producer = ring.send_producer(&engine.hca.dma);
    qp.is_still(QpState::ReadyToSend) && !waits && producer.is_ok_and(|producer| producer != requester.fetched)
}

/// Takes a RoCE packet that is there in bytes. Returns whether it was one for this function's transport.
pub(super) fn receive(engine: &Engine, view: &FrameView<'_>, own: bool) -> bool {
    let head = match Packet::new_checked(view) {
        Ok(head) => head,
        Err(error) => {
            debug!("A RoCE packet is dropped: {error}");
            return false;
        }
    };
    if !is_for_transport(engine, &head) {
        return false;
    }
    if crate::roce::icrc::check(view) {
        let mut payload = Payload::new();
        payload.push_bytes(&view.bytes()[head.payload_offset..head.payload_offset + head.payload_length]);
        let packet = SuperPacket::single(head, payload);
        match head.opcode.transport() {
            Transport::Ud => datagram::receive(engine, &packet, view, own),
            _ => connected(engine, &[&packet]),
        }
    }
    true
}

/// Takes RoCE packets that travel by reference and have the same addresses. Returns whether they were for this function's transport.
pub(super) fn receive_burst(engine: &Engine, frames: &[Frame<'_>], own: bool) -> bool {
    let super_packets: SmallVec<[&SuperPacket<'_>; batch::SUPER_PACKETS]> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::SuperPacket(super_packet) => Some(*super_packet),
            Frame::Bytes(_) => None,
        })
        .collect();
    let all = super_packets.len() == frames.len()
        && super_packets
            .first()
            .is_some_and(|first| is_for_transport(engine, &first.head));
    if !all {
        return false;
    }
    // One queue pair's packets in one direction, or its answers in the other.
    let same = |a: &&SuperPacket<'_>, b: &&SuperPacket<'_>| {
        let key = |super_packet: &SuperPacket<'_>| {
            let head = &super_packet.head;
            (
                head.headers.bth.destination_qpn(),
                head.opcode.transport(),
                head.opcode.is_response(),
            )
        };
        key(a) == key(b)
    };
    for chunk in super_packets.chunk_by(same) {
        match chunk {
            [first, ..] if first.head.opcode.transport() == Transport::Ud => {
                for packet in chunk {
                    // The headers themselves are a part of what is received.
                    let head = packet.head_bytes();
                    if let Some(view) = FrameView::new(&head) {
                        datagram::receive(engine, packet, &view, own);
                    }
                }
            }
            chunk => connected(engine, chunk),
        }
    }
    true
}

/// Whether a packet is for the transport, not for the guest's network stack.
fn is_for_transport(engine: &Engine, head: &Packet) -> bool {
    let vport = engine.hca.vport.read();
    let multicast = head.path.addresses.destination().is_multicast();
    vport.context.roce_en() && (multicast || vport.is_own(head.path.destination_mac))
}

/// Takes packets of a connection, all requests or all answers.
fn connected(engine: &Engine, super_packets: &[&SuperPacket<'_>]) {
    let Some(first) = super_packets.first() else { return };
    let Some(qp) = engine.hca.queue_pair(first.head.headers.bth.destination_qpn()) else {
        return;
    };
    let parameters = qp.parameters();
    let fits = match first.head.opcode.transport() {
        Transport::Rc => parameters.service == service::RC,
        Transport::Uc => parameters.service == service::UC,
        Transport::Xrc => parameters.service == service::XRC,
        Transport::Ud | Transport::Cnp => false,
    };
    // The same sender has the same address.
    let comes_from_peer = |super_packet: &&SuperPacket<'_>| {
        let path = parameters.path.as_ref();
        path.is_some_and(|path| path.addresses.destination() == super_packet.head.path.addresses.source())
    };
    if !fits || !super_packets.iter().all(comes_from_peer) {
        return;
    }
    if first.head.opcode.is_response() {
        response::receive(engine, &qp, &parameters, super_packets);
    } else {
        responder::receive(engine, &qp, &parameters, super_packets);
    }
}

/// Who a queue pair is for its packets.
fn transport_of(parameters: &Parameters) -> Transport {
    match parameters.service {
        service::UC => Transport::Uc,
        service::XRC => Transport::Xrc,
        _ => Transport::Rc,
    }
}

/// A queue pair goes to error. What is posted is flushed by the NIC's thread, for nobody holds locks there.
fn fail(engine: &Engine, qp: &Qp, event: Option<EventType>) {
    if qp.fail(&engine.hca.vport.read()) {
        if let Some(event) = event {
            engine.hca.eqs.announce(event, 0, &event_data(qp.number));
        }
        engine.hca.scheduler.schedule(qp.number);
    }
}
