//! The sending side: WQEs become packets.

use std::time::{Duration, Instant};

use mlx5_prm::mkey::Mkc;
use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::UmrControlSegment;
use mlx5_prm::wqe::{ControlSegment, DataSegment};
use zerocopy::FromBytes;

use super::batch::{self, Batch};
use super::memory::{self, Unreachable};
use super::work::Reader;
use super::{Engine, completion, datagram, fail, transport_of};
use crate::hca::guest_error::GuestError;
use crate::hca::mkey::{self, UmrControl, UmrPoster};
use crate::hca::qp::{DataList, Message, Parameters, Qp, Requester, Work, service};
use crate::hca::queue_counter::QueueCounter;
use crate::hca::scheduler::Task;
use crate::net::{Payload, SuperPacket};
use crate::roce::headers::{AtomicEth, Bth, Headers, Ieth, ImmDt, Reth, XrcEth};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix};
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;

/// Messages that may wait for their acknowledgement.
const MAX_MESSAGES: usize = 256;
/// Most packets of a message, and of what waits for its acknowledgement before it: what is ahead and what is behind must be told apart in all of
/// them, and that is possible in half of the sequence numbers.
const MAX_PACKETS: u32 = 1 << 22;
/// The unit of the acknowledgement timeout (IBTA 9.7.6.1.3).
const ACK_TIMEOUT_UNIT: Duration = Duration::from_nanos(4096);
/// A busy host looks like loss: no timeout is shorter.
const MIN_TIMEOUT: Duration = Duration::from_millis(20);
/// `rnr_retry`: for ever.
const RNR_RETRY_INFINITE: u8 = 7;
/// In `fm_ce_se`: how a WQE waits for earlier ones (`MLX5_FENCE_MODE_*`, qp.h).
const FENCE_SHIFT: u8 = 5;
const FENCE_SMALL: u8 = 1;

/// Sends all that can be sent now, or a part of it if others wait: then it comes again.
pub(super) fn run(engine: &Engine, qp: &Qp) {
    let Some(ring) = &qp.send_queue else { return };
    let mut reader = None;
    let mut batch = Batch::new(engine);
    loop {
        let parameters = qp.parameters();
        let pending;
        {
            let requester = &mut *qp.requester.lock();
            requester.attended = false;
            if !qp.is_still(parameters.state) || !ready(engine, qp, &parameters, requester) {
                return;
            }
            // What nobody acknowledges is read by now, and the guest's again.
            complete(qp, &parameters, requester);
            let reader =
                reader.get_or_insert_with(|| Reader::new(&engine.hca.dma, ring, parameters.service, requester.fetched));
            if let Err(error) = reader.look(&qp.blue_flame, requester.fetched) {
                let what = format_args!("Queue pair {:#x}: {error}", qp.number);
                engine
                    .hca
                    .guest_errors
                    .report(GuestError::UnreadableDoorbellRecord, what);
            }
            while !batch.is_full() && next(engine, qp, &parameters, reader, requester, &mut batch) {}
            if batch.is_empty() {
                complete(qp, &parameters, requester);
                return arm(engine, qp, &parameters, requester);
            }
            request_acknowledgement(&parameters, requester, batch.super_packets());
            requester.attended = true;
            // A WQE that came through a doorbell register is the reader's.
            pending = reader.has_blue_flame(requester.fetched);
        }
        batch.send();
        if !pending && engine.hca.scheduler.has_other_work() {
            return engine.hca.scheduler.schedule(qp.number);
        }
    }
}

/// Of the packets that are about to be sent, the last that ends a message asks for an acknowledgement of all before it, or the last of many
/// that end none.
fn request_acknowledgement(parameters: &Parameters, requester: &mut Requester, super_packets: &mut [SuperPacket<'_>]) {
    if !matches!(parameters.service, service::RC | service::XRC) {
        return;
    }
    let packets = super_packets.iter().map(SuperPacket::packets).sum();
    requester.unrequested = requester.unrequested.saturating_add(packets);
    let last_end = super_packets
        .iter()
        .rposition(|super_packet| super_packet.head.opcode.position().ends());
    let many = requester.unrequested >= parameters.acknowledge_every;
    let at = last_end.or_else(|| many.then(|| super_packets.len() - 1));
    if let Some(super_packet) = at.and_then(|at| super_packets.get_mut(at)) {
        let bth = &mut super_packet.head.headers.bth;
        *bth = bth.with_ack_request(true);
        requester.unrequested = 0;
    }
}

/// Looks at the clock: whether something may be sent now. Something may have to be sent again.
fn ready(engine: &Engine, qp: &Qp, parameters: &Parameters, requester: &mut Requester) -> bool {
    let now = Instant::now();
    requester.alarm = requester.alarm.filter(|alarm| *alarm > now);
    if let Some(time) = requester.not_before {
        if time > now {
            set_alarm(engine, qp, requester, time);
            return false;
        }
        requester.not_before = None;
    }
    if requester.deadline.is_some_and(|deadline| deadline <= now) {
        requester.deadline = None;
        if !retry_allowed(parameters, requester) {
            fail_first(engine, qp, parameters, requester, Syndrome::TransportRetryExceeded);
            return false;
        }
        parameters.count(QueueCounter::LocalAckTimeoutErr);
        let oldest = requester.unacknowledged;
        requester.go_back(oldest);
    }
    true
}

/// Sees that the queue pair is looked after when its time has come.
fn arm(engine: &Engine, qp: &Qp, parameters: &Parameters, requester: &mut Requester) {
    let waits = requester
        .messages
        .iter()
        .take(requester.current)
        .any(|message| !message.done && message.packets > 0);
    if !waits || parameters.ack_timeout == 0 {
        requester.deadline = None;
        return;
    }
    let timeout = ACK_TIMEOUT_UNIT
        .saturating_mul(1 << parameters.ack_timeout)
        .max(MIN_TIMEOUT);
    let deadline = *requester.deadline.get_or_insert_with(|| Instant::now() + timeout);
    set_alarm(engine, qp, requester, deadline);
}

fn set_alarm(engine: &Engine, qp: &Qp, requester: &mut Requester, time: Instant) {
    if requester.alarm.is_none_or(|alarm| alarm > time) {
        requester.alarm = Some(time);
        engine.hca.scheduler.schedule_at(time, Task::Queue(qp.number));
    }
}

/// Makes the next packet, or carries out the next WQE that needs none. Returns whether there may be more.
fn next<'a>(
    engine: &'a Engine,
    qp: &Qp,
    parameters: &Parameters,
    reader: &mut Reader<'_>,
    requester: &mut Requester,
    batch: &mut Batch<'a>,
) -> bool {
    if requester.current == requester.messages.len() && !fetch(engine, qp, parameters, reader, requester) {
        return false;
    }
    let at = requester.current;
    let message = &requester.messages[at];
    if message.done {
        // Acknowledged while it was to be sent again.
        if message.packets > 0 {
            requester.send_psn = message.first + message.packets;
        }
        requester.current += 1;
        return true;
    }
    if message.packets > 0 && requester.send_psn.is_before(message.first) {
        requester.send_psn = message.first;
    }
    let message = &requester.messages[at];
    let fenced = message.control.fm_ce_se >> FENCE_SHIFT > FENCE_SMALL;
    if fenced || message.work.is_request() {
        let open = requester.open_requests();
        if fenced && open > 0 || message.work.is_request() && open >= parameters.max_requests {
            return false;
        }
    }
    let is_first = |requester: &Requester, batch: &Batch<'_>| {
        batch.is_empty() && requester.messages.iter().take(at).all(|message| message.done)
    };
    let made = match &message.work {
        Work::Nop => {
            requester.messages[at].done = true;
            requester.current += 1;
            return true;
        }
        Work::Bad(_) | Work::Umr { .. } if !is_first(requester, batch) => return false,
        Work::Umr { bytes } if memory_key_update(engine, qp, parameters, bytes, message.control.immediate.get()) => {
            requester.messages[at].done = true;
            requester.current += 1;
            return true;
        }
        Work::Umr { .. } => Err(Syndrome::MwBind),
        Work::Bad(syndrome) => Err(*syndrome),
        Work::Datagram { .. } => {
            datagram::push_packet(engine, qp, parameters, message, requester.send_psn, batch).map(|()| 1)
        }
        _ => {
            let psn = requester.send_psn;
            push_super_packet(engine, qp, parameters, message, psn, batch::LENGTH, batch)
                // Of what cannot be reached as a whole, the packets before the first that cannot are sent.
                .or_else(|Unreachable| push_super_packet(engine, qp, parameters, message, psn, parameters.mtu, batch))
                .map_err(|Unreachable| Syndrome::LocalProtection)
        }
    };
    let sent = match made {
        Ok(sent) => sent,
        // Those before it are completed first.
        Err(_) if !is_first(requester, batch) => return false,
        Err(syndrome) => {
            complete(qp, parameters, requester);
            fail_first(engine, qp, parameters, requester, syndrome);
            return false;
        }
    };
    let message = &mut requester.messages[at];
    requester.send_psn += sent;
    if message.last().is_before(requester.send_psn) {
        // Nobody acknowledges what is unreliable.
        message.done |= !matches!(parameters.service, service::RC | service::XRC);
        requester.current += 1;
    }
    true
}

/// Reads the next WQE, if there is one.
fn fetch(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    reader: &mut Reader<'_>,
    requester: &mut Requester,
) -> bool {
    let reliable = matches!(parameters.service, service::RC | service::XRC);
    let waiting = requester.next_psn.distance(requester.unacknowledged).unsigned_abs();
    if requester.messages.len() >= MAX_MESSAGES || reliable && waiting >= MAX_PACKETS {
        return false;
    }
    let Some((blocks, blue_flame)) = reader.fetch(requester.fetched, &mut requester.messages) else {
        return false;
    };
    if blue_flame {
        engine.hca.blue_flame.count();
    }
    let Some(message) = requester.messages.last_mut() else {
        return false;
    };
    let packets = match message.work {
        Work::Nop | Work::Umr { .. } | Work::Bad(_) => 0,
        Work::Datagram { .. } | Work::CompareSwap { .. } | Work::FetchAdd { .. } => 1,
        _ => parameters.packets(message.length as usize),
    };
    (message.first, message.packets) = (requester.next_psn, packets);
    if packets > MAX_PACKETS {
        message.work = Work::Bad(Syndrome::LocalLength);
        message.packets = 0;
    }
    if let Work::Bad(_) = message.work {
        let what = format_args!(
            "Queue pair {:#x}, WQE {:#x} makes no sense: {:?}",
            qp.number, message.index, message.control
        );
        engine.hca.guest_errors.report(GuestError::BadSendWqe, what);
    }
    requester.next_psn += message.packets;
    requester.fetched = requester.fetched.wrapping_add(blocks);
    true
}

/// Adds the packets of a message from this PSN on, of `most` bytes at most, to those that are about to be sent. Returns how many PSNs they take.
fn push_super_packet<'a>(
    engine: &'a Engine,
    qp: &Qp,
    parameters: &Parameters,
    message: &Message,
    psn: Psn,
    most: usize,
    batch: &mut Batch<'a>,
) -> Result<u32, Unreachable> {
    let path = parameters.path.ok_or(Unreachable)?;
    let index = psn.distance(message.first).max(0) as u32;
    let packets = match message.packets.saturating_sub(index) {
        1 => 1,
        rest => rest.min((most / parameters.mtu) as u32),
    };
    let position = Position::new(index == 0, index + packets >= message.packets);
    let offset = index as usize * parameters.mtu;
    let length = (message.length as usize)
        .saturating_sub(offset)
        .min(packets as usize * parameters.mtu);
    let (operation, position, suffix) = match message.work {
        Work::Send { immediate, invalidate } => (Operation::Send, position, suffix(position, immediate, invalidate)),
        Work::Write { immediate, .. } => (Operation::Write, position, suffix(position, immediate, None)),
        Work::Read { .. } => (Operation::ReadRequest, Position::Only, Suffix::None),
        Work::CompareSwap { .. } => (Operation::CompareSwap, Position::Only, Suffix::None),
        Work::FetchAdd { .. } => (Operation::FetchAdd, Position::Only, Suffix::None),
        Work::Nop | Work::Datagram { .. } | Work::Umr { .. } | Work::Bad(_) => return Err(Unreachable),
    };
    let opcode = Opcode::new(transport_of(parameters), operation, position, suffix).ok_or(Unreachable)?;
    let ends = position.ends();
    let solicited = ends && message.control.fm_ce_se & ControlSegment::SOLICITED != 0;
    let bth = Bth::new(opcode, parameters.remote_qpn, psn).with_solicited(solicited && !message.work.is_request());
    let mut headers = Headers::new(bth);
    headers.xrc = message.xrc_srqn.map(XrcEth::new);
    let mut carries = false;
    match message.work {
        Work::Send { immediate, invalidate } => {
            if ends {
                headers.immediate = immediate.map(|immediate| ImmDt {
                    immediate: immediate.to_be_bytes(),
                });
                headers.invalidate = invalidate.map(|rkey| Ieth { rkey: rkey.into() });
            }
            carries = true;
        }
        Work::Write {
            address,
            rkey,
            immediate,
        } => {
            if position.begins() {
                headers.reth = Some(Reth::new(address, rkey, message.length));
            }
            if ends {
                headers.immediate = immediate.map(|immediate| ImmDt {
                    immediate: immediate.to_be_bytes(),
                });
            }
            carries = true;
        }
        Work::Read { address, rkey } => {
            // Of what was answered in part, only the rest is asked for again.
            let done = offset.min(message.length as usize);
            headers.reth = Some(Reth::new(
                address.wrapping_add(done as u64),
                rkey,
                message.length - done as u32,
            ));
        }
        Work::CompareSwap {
            address,
            rkey,
            swap,
            compare,
        } => {
            headers.atomic = Some(AtomicEth {
                virtual_address: address.into(),
                rkey: rkey.into(),
                swap_or_add: swap.into(),
                compare: compare.into(),
            });
        }
        Work::FetchAdd { address, rkey, add } => {
            headers.atomic = Some(AtomicEth {
                virtual_address: address.into(),
                rkey: rkey.into(),
                swap_or_add: add.into(),
                compare: 0.into(),
            });
        }
        Work::Nop | Work::Datagram { .. } | Work::Umr { .. } | Work::Bad(_) => {}
    }
    if !carries {
        batch.push(Packet::new(path, opcode, headers, 0), 0, |_| Ok(()))?;
        // Their answers take the PSNs that follow.
        return Ok(message.packets - message.answered);
    }
    let head = Packet::new(path, opcode, headers, length);
    batch.push(head, parameters.mtu, |payload| {
        memory::gather(engine, qp, parameters, &message.data, offset, length, payload)
    })?;
    Ok(packets)
}

fn suffix(position: Position, immediate: Option<u32>, invalidate: Option<u32>) -> Suffix {
    match (position.ends(), immediate, invalidate) {
        (true, Some(_), _) => Suffix::Immediate,
        (true, None, Some(_)) => Suffix::Invalidate,
        _ => Suffix::None,
    }
}

/// Changes a memory key.
fn memory_key_update(engine: &Engine, qp: &Qp, parameters: &Parameters, bytes: &[u8], key: u32) -> bool {
    let Some((control, context, list)) = umr_segments(bytes) else {
        return false;
    };
    let accessor = memory::accessor(qp, parameters);
    let poster = UmrPoster {
        accessor,
        reg_umr: parameters.service == service::REG_UMR,
        fast_register: parameters.fast_register,
    };
    let mut translations = Vec::new();
    if control.flags & UmrControlSegment::INLINE != 0 {
        translations.extend_from_slice(list);
    } else if control.translation_length() > 0 {
        let Ok((segment, _)) = DataSegment::read_from_prefix(list) else {
            return false;
        };
        let mut data = DataList::default();
        data.push_memory(segment);
        let length = control.translation_length().min(segment.byte_count.get() as usize);
        let mut list = Payload::of_memory(&engine.hca.dma);
        if memory::gather(engine, qp, parameters, &data, 0, length, &mut list).is_err()
            || list.append_to(&mut translations).is_err()
        {
            return false;
        }
    }
    mkey::umr(
        &engine.hca.mkeys,
        poster,
        key,
        &UmrControl::from(&control),
        &context,
        &translations,
    )
    .is_ok()
}

/// The parts of a WQE that changes a key: control, context, and the list or where it is.
fn umr_segments(bytes: &[u8]) -> Option<(UmrControlSegment, Mkc, &[u8])> {
    let (control, rest) = UmrControlSegment::read_from_prefix(bytes).ok()?;
    let (context, list) = Mkc::read_from_prefix(rest).ok()?;
    Some((control, context, list))
}

/// Takes what is done from the front of the queue, and tells the guest.
pub(super) fn complete(qp: &Qp, parameters: &Parameters, requester: &mut Requester) {
    let mut done = 0;
    for message in requester.messages.iter().take_while(|message| message.done) {
        completion::sent(qp, parameters, message);
        done += 1;
    }
    requester.messages.remove(done);
    requester.current = requester.current.saturating_sub(done);
}

/// The oldest message failed; all after it are flushed.
pub(super) fn fail_first(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    requester: &mut Requester,
    syndrome: Syndrome,
) {
    if let Some(message) = requester.messages.first() {
        completion::send_failed(qp, parameters, completion::opcode(message), message.index, syndrome);
        requester.messages.remove(1);
        requester.current = requester.current.saturating_sub(1);
    }
    requester.deadline = None;
    fail(engine, qp, None);
}

/// Whether packets may be sent again that did not arrive (IBTA 9.9.2.1.1). Whatever is acknowledged begins the count anew.
pub(super) fn retry_allowed(parameters: &Parameters, requester: &mut Requester) -> bool {
    let allowed = requester.retries < parameters.retry_count;
    requester.retries += u8::from(allowed);
    allowed
}

/// Whether the other side may be tried again that has no receive posted.
pub(super) fn rnr_allowed(parameters: &Parameters, requester: &mut Requester) -> bool {
    if parameters.rnr_retry != RNR_RETRY_INFINITE {
        if requester.rnr_retries >= parameters.rnr_retry {
            return false;
        }
        requester.rnr_retries += 1;
    }
    true
}
