//! Unreliable datagrams, including those of the management queue pair, and multicast.

use mlx5_prm::queue_entry::{Cqe, Syndrome};

use super::super::context::Context;
use super::super::denial;
use super::batch::Batch;
use super::completion::{self, Arrival, ReceiveCq};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::pcie_wait;
use super::receive_queue::{self, Broken, XrcQueue};
use crate::frame::mac::Mac;
use crate::frame::view::FrameView;
use crate::hca::mkey;
use crate::hca::nic_event::NicEvent;
use crate::hca::pcie_account::Transactions;
use crate::hca::qp::{Message, Qp, Work, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::{Payload, SuperPacket};
use crate::roce::gid::Gid;
use crate::roce::grh_area;
use crate::roce::headers::{Bth, Deth, Headers, ImmDt};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix, Transport};
use crate::roce::packet::Packet;
use crate::roce::path::{Addresses, Path, Vlan};
use crate::roce::psn::Psn;

/// QP number of the management queue pair (GSI).
const GSI_QPN: u32 = 1;
/// Q_Key of every management queue pair (`IB_QP1_QKEY`, rdma/ib_mad.h); its WQEs only name the queue pair's own.
const GSI_Q_KEY: u32 = 0x8001_0000;
/// Destination QP number of a multicast.
const MULTICAST_QPN: u32 = 0xff_ffff;
/// Bit of a Q_Key in a WQE: use the queue pair's own.
const Q_KEY_OWN: u32 = 1 << 31;
/// Partition key of every packet.
const PKEY: u32 = 0xffff;
/// Lowest UDP source port (`r_roce_min_src_udp_port`), for address vectors without one.
const MIN_SOURCE_PORT: u16 = 0xc000;

/// Adds the packet of a datagram to the batch.
pub(super) fn push_packet(
    endpoint: &Endpoint<'_>,
    message: &Message,
    psn: Psn,
    keys: &mut mkey::Recent<'_>,
    batch: &mut Batch<'_>,
) -> Result<(), Failure> {
    let Work::Datagram { to, immediate } = message.work() else {
        return Err(Syndrome::LocalQpOperation.into());
    };
    let (qp, parameters) = (endpoint.qp, endpoint.parameters);
    let source = endpoint
        .hca()
        .vport
        .read()
        .roce_source(to.source_gid_index())
        .ok_or(Syndrome::LocalQpOperation)?;
    let length = message.length() as usize;
    if length > parameters.mtu {
        return Err(Syndrome::LocalLength.into());
    }
    let path = Path {
        source_mac: source.mac,
        destination_mac: Mac(to.rmac),
        vlan: source.vlan.map(|id| Vlan {
            id,
            priority: to.ethernet_priority(),
        }),
        addresses: source.addresses(Gid(to.rgid)),
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
    let bth = Bth::new(opcode, to.remote_queue_number(), psn).with_solicited(message.is_solicited());
    let mut headers = Headers::new(bth);
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
    let head = Packet::new(path, opcode, headers, length);
    batch
        .push(head, length, Some(message.index()), |payload| {
            endpoint.memory().gather_list(keys, message.data(), 0..length, payload)
        })
        .map_err(Failure::access)
}

/// Receives a datagram; a multicast is delivered to every member of its group.
pub(super) fn receive(context: &Context, packet: &SuperPacket<'_>, view: &FrameView<'_>, loopback: bool) {
    let hca = &context.hca;
    let head = &packet.head;
    match head.headers.bth.destination_qpn() {
        MULTICAST_QPN => {
            let group = head.path.addresses.destination().0;
            let members: Vec<u32> = match hca.multicast_groups.lock().get(&group) {
                Some(members) => members.iter().map(|(number, _)| *number).collect(),
                None => return,
            };
            let sender = head.headers.deth.map(|deth| deth.source_qpn());
            for qp in members.into_iter().filter_map(|number| hca.queue_pair(number)) {
                let blocked = loopback && sender == Some(qp.number) && qp.parameters().block_multicast_loopback;
                if !blocked {
                    deliver(context, &qp, packet, view);
                }
            }
        }
        GSI_QPN => {
            if let Some(qp) = hca.management_queue_pair() {
                deliver(context, &qp, packet, view);
            }
        }
        number => {
            if let Some(qp) = hca.queue_pair(number) {
                deliver(context, &qp, packet, view);
            }
        }
    }
}

/// Writes a datagram, behind its GRH, into the next receive WQE of a queue pair, and completes it.
fn deliver(context: &Context, qp: &Qp, packet: &SuperPacket<'_>, view: &FrameView<'_>) {
    context
        .hca
        .tracer
        .record(NicEvent::PacketIn, qp.number, || super::arrival(packet));
    let (super_packet, number) = (packet, packet.last_number());
    let (packet, payload) = (&super_packet.head, &super_packet.payload);
    let parameters = &*qp.parameters();
    let endpoint = &Endpoint {
        context,
        qp,
        parameters,
    };
    let Some(deth) = packet.headers.deth else { return };
    if !parameters.state.receives() || !matches!(parameters.service, service::UD | service::GSI) {
        return;
    }
    // Management queue pairs all have the same Q_Key.
    if parameters.service == service::UD && deth.qkey.get() != parameters.q_key {
        return;
    }
    pcie_wait::before_datagram(endpoint);
    let responder = &mut *qp.responder.lock();
    if !endpoint.is_current() {
        return;
    }
    let receive = match receive_queue::take(endpoint, responder, super_packet, &XrcQueue::Absent) {
        Ok(Some(receive)) => receive,
        Ok(None) => return parameters.count(QueueCounter::OutOfBuffer),
        Err(Broken { event }) => return endpoint.fail(event),
    };
    let Some(cq) = &qp.receive_cq else { return };
    let mut grh = Payload::new();
    grh.push_bytes(&grh_area::area(view));
    let length = grh.len() + payload.len();
    if length as u64 > receive.room {
        // Silently dropped; the receive WQE stays posted.
        return responder.put_back(receive);
    }
    let stored = endpoint
        .scatter(&receive, 0, &grh)
        .and_then(|()| endpoint.scatter(&receive, grh.len(), payload));
    if let Err(error) = stored {
        if error.is_of_source() {
            return responder.put_back(receive);
        }
        denial::report(&context.hca, qp.number, &error);
        let user_index = parameters.user_index;
        let to = ReceiveCq { cq, user_index };
        let posted = completion::receive_failed(qp, to, receive.wqe_counter, Syndrome::LocalProtection);
        let place = endpoint.placed(posted);
        endpoint.note_received(number, receive.wqe_counter, place);
        return endpoint.fail(None);
    }
    let mut written = Transactions::default();
    written.add_packets(receive.lengths(), 0..length, length);
    responder.account_written(written);
    let arrival = Arrival::of(packet, length as u32);
    let mut cqe: Cqe = completion::arrived(qp, parameters.user_index, &receive, arrival);
    if parameters.service == service::GSI {
        cqe.immediate.set(PKEY);
    }
    // GRH present; type of the layer 3 header (`MLX5_CQE_ROCE_L3_HEADER_TYPE_*`, device.h); source QP number.
    let l3 = match packet.path.addresses {
        Addresses::Ipv4 { .. } => 2,
        Addresses::Ipv6 { .. } => 1,
        Addresses::Grh { .. } => 0,
    };
    cqe.flags_rqpn.set(1 << 28 | l3 << 24 | deth.source_qpn());
    if let Some(vlan) = packet.path.vlan {
        cqe.l4_l3_hdr_type |= 1;
        cqe.vlan_info.set(u16::from(vlan.priority) << 13 | vlan.id);
    }
    let place = endpoint.placed(cq.post(cqe));
    endpoint.note_received(number, receive.wqe_counter, place);
}
