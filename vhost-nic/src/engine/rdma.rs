//! Queue pairs: requesters and responders of the RDMA transports.
//!
//! A packet is received on the thread of its sender, and so is the response to it (see [`ingress`](super::ingress)). A
//! queue pair's locks are therefore never held while one of its packets is on its way. Packets travel in bursts, and
//! those of a message as one super-packet: work that many packets have in common is done once.
//!
//! Requests pass [`send_queue`] and [`outbound_request`] at the requester, [`inbound_request`] and [`execute`] at the
//! responder; responses pass [`outbound_response`] there and [`inbound_response`] at the requester.

mod batch;
mod completion;
mod datagram;
mod endpoint;
mod execute;
mod failure;
mod flush;
mod inbound_request;
mod inbound_response;
mod key_update;
mod outbound_request;
mod outbound_response;
mod pcie_wait;
mod receive_queue;
mod send_queue;
mod send_wqe;
mod vendor_syndrome;

use log::debug;
use smallvec::SmallVec;

use super::context::Context;
use crate::frame::view::FrameView;
use crate::hca::nic_event::{self, NicEvent};
use crate::hca::qp::{Qp, QpState, service};
use crate::net::{Frame, FrameNumber, Payload, SuperPacket};
use crate::roce::opcode::Transport;
use crate::roce::packet::Packet;
use endpoint::Endpoint;

/// Executes what is posted to a queue pair.
pub(super) fn run(context: &Context, qp: &Qp) {
    let parameters = qp.parameters();
    match parameters.state {
        QpState::Error => flush::run(&Endpoint {
            context,
            qp,
            parameters: &parameters,
        }),
        QpState::ReadyToSend => send_queue::run(context, qp),
        _ => {}
    }
}

/// Whether the send queue has unread WQEs and can send them now.
pub(super) fn has_posted(context: &Context, qp: &Qp) -> bool {
    let Some(ring) = &qp.send_queue else { return false };
    let requester = qp.requester.lock();
    // A blocked queue is scheduled when it can continue.
    let blocked = requester.is_blocked();
    let producer = ring.look_at_send_producer(&context.hca.dma);
    let ready = qp.parameters().state == QpState::ReadyToSend;
    ready && !blocked && producer.is_ok_and(|producer| producer != requester.fetched())
}

/// Receives a RoCE packet given as bytes, and its number for the taps. Returns whether it was one for this function's
/// transport.
pub(super) fn receive(context: &Context, view: &FrameView<'_>, number: FrameNumber, loopback: bool) -> bool {
    let head = match Packet::new_checked(view) {
        Ok(head) => head,
        Err(error) => {
            debug!("dropped a RoCE packet: {error}");
            return false;
        }
    };
    if !is_for_transport(context, &head) {
        return false;
    }
    if crate::roce::icrc::check(view) {
        let mut payload = Payload::new();
        payload.push_bytes(&view.bytes()[head.payload_offset..head.payload_offset + head.payload_length]);
        let packet = SuperPacket::single(head, payload);
        packet.number.set(number);
        match head.opcode.transport() {
            Transport::Ud => datagram::receive(context, &packet, view, loopback),
            _ => connected(context, &[&packet]),
        }
    }
    true
}

/// Receives RoCE packets that travel by reference and have the same Ethernet addresses. Returns whether they were for
/// this function's transport.
pub(super) fn receive_burst(context: &Context, frames: &[Frame<'_>], loopback: bool) -> bool {
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
            .is_some_and(|first| is_for_transport(context, &first.head));
    if !all {
        return false;
    }
    // Packets for one queue pair from one peer, either all requests or all responses. A router sends those of several
    // peers with the same Ethernet addresses.
    let same = |a: &&SuperPacket<'_>, b: &&SuperPacket<'_>| {
        let key = |super_packet: &SuperPacket<'_>| {
            let head = &super_packet.head;
            (
                head.headers.bth.destination_qpn(),
                head.opcode.transport(),
                head.opcode.is_response(),
                head.path.addresses,
            )
        };
        key(a) == key(b)
    };
    for chunk in super_packets.chunk_by(same) {
        match chunk {
            [first, ..] if first.head.opcode.transport() == Transport::Ud => {
                for packet in chunk {
                    // The GRH of a datagram is received with it.
                    let head = packet.head_bytes();
                    if let Some(view) = FrameView::new(&head) {
                        datagram::receive(context, packet, &view, loopback);
                    }
                }
            }
            chunk => connected(context, chunk),
        }
    }
    true
}

/// Whether a packet is for the transport, not for the guest's network stack.
fn is_for_transport(context: &Context, head: &Packet) -> bool {
    let vport = context.hca.vport.read();
    let multicast = head.path.addresses.destination().is_multicast();
    vport.context.roce_en() && (multicast || vport.is_own(head.path.destination_mac))
}

/// Arguments of [`NicEvent::PacketIn`].
fn arrival(super_packet: &SuperPacket<'_>) -> [u32; 4] {
    let head = &super_packet.head;
    [
        nic_event::bth(head),
        super_packet.payload.len() as u32,
        nic_event::route(head),
        0,
    ]
}

/// Receives packets of a connection with the same addresses, either all requests or all responses.
fn connected(context: &Context, super_packets: &[&SuperPacket<'_>]) {
    let Some(first) = super_packets.first() else { return };
    let Some(qp) = context.hca.queue_pair(first.head.headers.bth.destination_qpn()) else {
        return;
    };
    let parameters = qp.parameters();
    let is_of_service = match first.head.opcode.transport() {
        Transport::Rc => parameters.service == service::RC,
        Transport::Uc => parameters.service == service::UC,
        Transport::Xrc => parameters.service == service::XRC,
        Transport::Ud | Transport::Cnp => false,
    };
    let is_from_peer = |super_packet: &&SuperPacket<'_>| {
        let path = parameters.path.as_ref();
        let from = &super_packet.head.path;
        path.is_some_and(|path| {
            path.addresses.is_v1() == from.addresses.is_v1()
                && path.addresses.destination() == from.addresses.source()
                && (!context.hca.spoof_check || path.destination_mac == from.source_mac)
        })
    };
    if !is_of_service || !super_packets.iter().all(is_from_peer) {
        return;
    }
    let endpoint = Endpoint {
        context,
        qp: &qp,
        parameters: &parameters,
    };
    if context.hca.tracer.is_on() {
        for super_packet in super_packets {
            endpoint.trace(NicEvent::PacketIn, || arrival(super_packet));
        }
    }
    if first.head.opcode.is_response() {
        inbound_response::receive(&endpoint, super_packets);
    } else {
        inbound_request::receive(&endpoint, super_packets);
    }
}
