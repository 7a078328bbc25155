//! Unreliable datagrams, those of the management agents among them, and multicast.

use mlx5_prm::queue_entry::{Cqe, Syndrome};
use mlx5_prm::wqe::ControlSegment;

use super::batch::Batch;
use super::completion::{self, Arrival};
use super::{Engine, FrameView};
use super::{memory, receive_queue};
use crate::frame::mac::Mac;
use crate::hca::qp::{Message, Parameters, Qp, QpState, Work, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::{Payload, SuperPacket};
use crate::roce::gid::Gid;
use crate::roce::grh;
use crate::roce::headers::{Bth, Deth, Headers, ImmDt};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix, Transport};
use crate::roce::packet::Packet;
use crate::roce::path::{Addresses, Path, Vlan};
use crate::roce::psn::Psn;

/// The queue pair of management datagrams.
const GSI_QPN: u32 = 1;
/// The key of all such queue pairs (`IB_QP1_QKEY`, rdma/ib_mad.h); the driver only asks for their own.
const GSI_Q_KEY: u32 = 0x8001_0000;
/// What a multicast is sent to.
const MULTICAST_QPN: u32 = 0xff_ffff;
/// In a key: use the queue pair's own.
const Q_KEY_OWN: u32 = 1 << 31;
/// The partition key of all packets.
const PKEY: u32 = 0xffff;
/// Ports of address handles that name none (`r_roce_min_src_udp_port`).
const MIN_SOURCE_PORT: u16 = 0xc000;

/// Adds the packet of a datagram to those that are about to be sent.
pub(super) fn push_packet<'a>(
    engine: &'a Engine,
    qp: &Qp,
    parameters: &Parameters,
    message: &Message,
    psn: Psn,
    batch: &mut Batch<'a>,
) -> Result<(), Syndrome> {
    let Work::Datagram { to, immediate } = &message.work else {
        return Err(Syndrome::LocalQpOperation);
    };
    let source = engine
        .hca
        .vport
        .read()
        .roce_source(to.source_gid_index())
        .ok_or(Syndrome::LocalQpOperation)?;
    if message.length as usize > parameters.mtu {
        return Err(Syndrome::LocalLength);
    }
    let path = Path {
        source_mac: source.mac,
        destination_mac: Mac(to.rmac),
        vlan: source.vlan.map(|id| Vlan {
            id,
            priority: to.ethernet_priority(),
        }),
        addresses: Addresses::new(source.gid, Gid(to.rgid)),
        udp_source_port: to.udp_sport.get().max(MIN_SOURCE_PORT),
        traffic_class: to.tclass,
        hop_limit: to.hop_limit,
        flow_label: to.flow_label(),
    };
    let suffix = if immediate.is_some() {
        Suffix::Immediate
    } else {
        Suffix::None
    };
    let opcode =
        Opcode::new(Transport::Ud, Operation::Send, Position::Only, suffix).ok_or(Syndrome::LocalQpOperation)?;
    let solicited = message.control.fm_ce_se & ControlSegment::SOLICITED != 0;
    let mut headers = Headers::new(Bth::new(opcode, to.remote_queue_number(), psn).with_solicited(solicited));
    let q_key = match to.qkey.get() {
        _ if parameters.service == service::GSI => GSI_Q_KEY,
        own if own & Q_KEY_OWN != 0 => parameters.q_key,
        key => key,
    };
    let from = match parameters.service {
        service::GSI => GSI_QPN,
        _ if parameters.deth_sqpn != 0 => parameters.deth_sqpn,
        _ => qp.number,
    };
    headers.deth = Some(Deth::new(q_key, from));
    headers.immediate = immediate.map(|immediate| ImmDt {
        immediate: immediate.to_be_bytes(),
    });
    let length = message.length as usize;
    let head = Packet::new(path, opcode, headers, length);
    batch
        .push(head, length, |payload| {
            memory::gather(engine, qp, parameters, &message.data, 0, length, payload)
        })
        .map_err(|_| Syndrome::LocalProtection)
}

/// Takes a datagram.
pub(super) fn receive(engine: &Engine, packet: &SuperPacket<'_>, view: &FrameView<'_>, own: bool) {
    let hca = &engine.hca;
    let (packet, payload) = (&packet.head, &packet.payload);
    match packet.headers.bth.destination_qpn() {
        MULTICAST_QPN => {
            let group = packet.path.addresses.destination().0;
            let members: Vec<u32> = match hca.multicast_groups.lock().get(&group) {
                Some(members) => members.iter().map(|(number, _)| *number).collect(),
                None => return,
            };
            let sender = packet.headers.deth.map(|deth| deth.source_qpn());
            for qp in members.into_iter().filter_map(|number| hca.queue_pair(number)) {
                let blocked = own && sender == Some(qp.number) && qp.parameters().block_multicast_loopback;
                if !blocked {
                    deliver(engine, &qp, packet, payload, view);
                }
            }
        }
        GSI_QPN => {
            if let Some(qp) = hca.management_queue_pair() {
                deliver(engine, &qp, packet, payload, view);
            }
        }
        number => {
            if let Some(qp) = hca.queue_pair(number) {
                deliver(engine, &qp, packet, payload, view);
            }
        }
    }
}

fn deliver(engine: &Engine, qp: &Qp, packet: &Packet, payload: &Payload<'_>, view: &FrameView<'_>) {
    let parameters = qp.parameters();
    let ready = matches!(
        parameters.state,
        QpState::ReadyToReceive | QpState::ReadyToSend | QpState::SendQueueDrained
    );
    let Some(deth) = packet.headers.deth else { return };
    if !ready || !matches!(parameters.service, service::UD | service::GSI) {
        return;
    }
    // Those of management have all the same key.
    if parameters.service == service::UD && deth.qkey.get() != parameters.q_key {
        return;
    }
    let responder = &mut *qp.responder.lock();
    if !qp.is_still(parameters.state) {
        return;
    }
    let Some(receive) = receive_queue::take(engine, qp, &parameters, responder, packet) else {
        return parameters.count(QueueCounter::OutOfBuffer);
    };
    let Some(cq) = &qp.receive_cq else { return };
    let mut data = Payload::new();
    data.push_bytes(&grh::area(view));
    let head = data.len();
    let length = head + payload.len();
    if length as u64 > receive.room {
        // Lost, as on any unreliable wire; the receive is there for the next one.
        responder.spare = Some(receive);
        return;
    }
    let stored = memory::scatter_receive(engine, qp, &parameters, &receive, 0, &data)
        .and_then(|()| memory::scatter_receive(engine, qp, &parameters, &receive, head, payload));
    if stored.is_err() {
        completion::receive_failed(
            qp,
            cq,
            parameters.user_index,
            receive.wqe_counter,
            Syndrome::LocalProtection,
        );
        return super::fail(engine, qp, None);
    }
    let arrival = Arrival {
        write: false,
        immediate: packet
            .headers
            .immediate
            .map(|header| u32::from_be_bytes(header.immediate)),
        invalidated: None,
        solicited: packet.headers.bth.solicited(),
        length: length as u32,
    };
    let mut cqe: Cqe = completion::arrived(qp, parameters.user_index, &receive, arrival);
    if parameters.service == service::GSI {
        cqe.immediate.set(PKEY);
    }
    // GRH present; the kind of layer 3 (`MLX5_CQE_ROCE_L3_HEADER_TYPE_*`, device.h); the priority as service level.
    let l3 = match packet.path.addresses {
        Addresses::Ipv4 { .. } => 2,
        Addresses::Ipv6 { .. } => 1,
    };
    cqe.flags_rqpn.set(1 << 28 | l3 << 24 | deth.source_qpn());
    if let Some(vlan) = packet.path.vlan {
        cqe.l4_l3_hdr_type |= 1;
        cqe.vlan_info.set(u16::from(vlan.priority) << 13 | vlan.id);
    }
    cq.post(cqe);
}
