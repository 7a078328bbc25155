//! Queue pairs: WQEs in, packets out, and back.
//!
//! A packet is handed over on the thread of its sender, and what answers it comes back on the same thread. So nobody holds a queue pair's
//! lock while a packet of it is on its way.

mod answer;
mod completion;
mod datagram;
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

use super::offload::parse::FrameView;
use super::{Engine, transmit};
use crate::hca::qp::{Qp, QpState, service};
use crate::hca::srq::event_data;
use crate::net::{Frame, Payload};
use crate::roce::headers::Headers;
use crate::roce::opcode::Transport;
use crate::roce::packet::{MAX_HEAD, Packet, emit_headers};
use crate::roce::path::Path;

/// A packet that is ready to go.
struct Outgoing {
    path: Path,
    headers: Headers,
    payload: Payload,
}

/// Carries out what is posted to a queue pair.
pub(super) fn run(engine: &Engine, qp: &Qp) {
    match qp.parameters().state {
        QpState::Error => flush::run(engine, qp),
        QpState::ReadyToSend => requester::run(engine, qp),
        _ => {}
    }
}

/// Takes a RoCE packet. Returns whether it was one for this function's transport.
pub(super) fn receive(engine: &Engine, frame: Frame<'_>, view: &FrameView<'_>, own: bool) -> bool {
    let parsed = match frame.payload {
        Some(_) => Packet::new_checked_head(view),
        None => Packet::new_checked(view),
    };
    let packet = match parsed {
        Ok(packet) => packet,
        Err(error) => {
            debug!("A RoCE packet is dropped: {error}");
            return false;
        }
    };
    let vport = engine.hca.vport.read();
    let multicast = packet.path.addresses.destination().is_multicast();
    if !vport.context.roce_en() || !(multicast || vport.is_own(&packet.path.destination_mac)) {
        return false;
    }
    drop(vport);
    let mut bytes = Payload::default();
    let payload = match frame.payload {
        Some(payload) => payload,
        None => {
            if !crate::roce::icrc::check(view) {
                return true;
            }
            bytes.push_bytes(&view.bytes()[packet.payload_offset..packet.payload_offset + packet.payload_length]);
            &bytes
        }
    };
    match packet.opcode.transport() {
        Transport::Ud => datagram::receive(engine, &packet, payload, view, own),
        Transport::Rc | Transport::Uc | Transport::Xrc => connected(engine, &packet, payload),
        Transport::Cnp => {}
    }
    true
}

fn connected(engine: &Engine, packet: &Packet, payload: &Payload) {
    let Some(qp) = engine.hca.queue_pair(packet.headers.bth.destination_qpn()) else {
        return;
    };
    let parameters = qp.parameters();
    let fits = match packet.opcode.transport() {
        Transport::Rc => parameters.service == service::RC,
        Transport::Uc => parameters.service == service::UC,
        _ => parameters.service == service::XRC,
    };
    let comes_from_peer = parameters
        .path
        .as_ref()
        .is_some_and(|path| path.addresses.destination() == packet.path.addresses.source());
    if !fits || !comes_from_peer {
        return;
    }
    if packet.opcode.is_response() {
        response::receive(engine, &qp, &parameters, packet, payload);
    } else {
        responder::receive(engine, &qp, &parameters, packet, payload);
    }
}

/// Sends a packet.
fn send(engine: &Engine, packet: &Outgoing) {
    let mut head = Vec::with_capacity(MAX_HEAD);
    emit_headers(&packet.path, &packet.headers, packet.payload.len(), &mut head);
    transmit::transmit(
        engine,
        Frame {
            bytes: &head,
            payload: Some(&packet.payload),
        },
        None,
    );
}

/// A queue pair goes to error. What is posted is flushed by the NIC's thread, for nobody holds locks there.
fn fail(engine: &Engine, qp: &Qp, event: Option<EventType>) {
    if qp.fail(&engine.hca.vport.read()) {
        if let Some(event) = event {
            engine.hca.eqs.announce(event, 0, &event_data(qp.number));
        }
        engine.hca.bells.ring(qp.number);
    }
}
