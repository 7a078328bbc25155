//! Requester: WQEs of the send queue become packets.

use std::time::{Duration, Instant};

use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::SEND_WQE_DS;
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::denial;
use super::batch::{self, Batch};
use super::completion::{complete_sent, fail_oldest};
use super::endpoint::Endpoint;
use super::pcie_wait::Progress;
use super::send_wqe::{Reader, WqeOrigin};
use super::{datagram, key_update, outbound_request};
use crate::hca::mkey;
use crate::hca::nic_event::{NicEvent, Timer};
use crate::hca::nic_finding::{Finding, queue};
use crate::hca::qp::{MAX_PACKETS, Message, Qp, QpState, Requester, Timers, Work};
use crate::hca::queue_counter::QueueCounter;
use crate::hca::wq::WorkQueue;
use crate::net::SuperPacket;
use crate::roce::psn::Psn;

/// Unit of the acknowledgement timeout (IBTA 9.7.6.1.3).
const ACK_TIMEOUT_UNIT: Duration = Duration::from_nanos(4096);
/// Least code of an acknowledgement timeout, 17 ms; less counts as this, as on a ConnectX-5. A busy peer is not loss.
const MIN_ACK_TIMEOUT: u8 = 12;
/// Maximum number of batches in a row: a driver that posts without end must not keep the NIC from its reset.
const BATCHES: usize = 64;
/// Fence mode in `fm_ce_se` (`MLX5_FENCE_MODE_*`, qp.h).
const FENCE_SHIFT: u8 = 5;
const FENCE_SMALL: u8 = 1;

/// Sends until the queue is empty, blocked, or must yield to others; a yielding queue reschedules itself.
pub(super) fn run(context: &Context, qp: &Qp) {
    let Some(ring) = &qp.send_queue else { return };
    let hca = &context.hca;
    let (mut reader, mut generation) = (None, qp.parameters().generation);
    let mut batch = Batch::new(context, qp.number);
    let mut batches = 0..BATCHES;
    loop {
        let pending;
        let waits;
        {
            let requester = &mut *qp.requester.lock();
            // Read under the lock, for which a command that changes the state waits before it resets the requester.
            let parameters = qp.parameters();
            let endpoint = &Endpoint {
                context,
                qp,
                parameters: &parameters,
            };
            if requester.is_in_service() {
                requester.judge_distance();
            }
            requester.set_in_service(false);
            if parameters.state != QpState::ReadyToSend || !check_timers(endpoint, requester) {
                return;
            }
            // Work on unreliable services completes here: its payload has been read, the buffer is the guest's again.
            if !parameters.is_reliable() && context.tap().is_some() {
                requester.set_last_packets(|wqe| batch.last_packet_of(wqe));
            }
            complete_sent(endpoint, requester);
            // A completion queue in error ends the queue.
            if !endpoint.is_current() {
                return;
            }
            // What was read before a reset is not what is posted after it.
            if generation != parameters.generation {
                (reader, generation) = (None, parameters.generation);
            }
            let reader =
                reader.get_or_insert_with(|| Reader::new(&hca.dma, ring, parameters.service, requester.fetched()));
            if let Err(error) = reader.look(&qp.blue_flame, requester.fetched()) {
                hca.findings.report_doorbell_record(queue(qp.number), &error);
                return endpoint.fail(Some(EventType::WqCatastrophicError));
            }
            check_overrun(endpoint, requester, reader, ring);
            batch.reserve(reader.posted(requester.fetched()).into());
            let progress = Progress::of(requester);
            let mut keys = mkey::Recent::new(&hca.mkeys);
            while !batch.is_full() && send_next(endpoint, requester, reader, &mut keys, &mut batch) {}
            drop(keys);
            if batch.is_empty() {
                complete_sent(endpoint, requester);
                return arm_timer(endpoint, requester);
            }
            request_acknowledgement(endpoint, requester, batch.super_packets());
            requester.set_in_service(true);
            // A WQE that came through a doorbell register is only in this reader.
            pending = reader.has_blue_flame(requester.fetched());
            waits = progress.until(requester, reader);
        }
        waits.spend(&hca.pcie_latency);
        batch.send();
        let yields = batches.next().is_none() || hca.scheduler.has_other_work();
        // A reset drops what came through a doorbell register as well.
        if !pending && yields || !context.initialized() {
            return hca.scheduler.schedule(qp.number);
        }
    }
}

/// Reports WQEs that were posted in the place of some that are not completed.
#[inline]
fn check_overrun(endpoint: &Endpoint<'_>, requester: &Requester, reader: &Reader<'_>, ring: &WorkQueue) {
    let (fetched, consumer) = (requester.fetched(), requester.consumer());
    if reader.is_posted(fetched) {
        let producer = consumer.wrapping_add(reader.posted(consumer));
        ring.check_overrun(&endpoint.hca().findings, endpoint.qp.number, producer, consumer);
    }
}

/// Requests an acknowledgement of the packets that are about to be sent, in the last that ends a message; if none does,
/// in the last of all once enough packets have been sent without a request. In the last of all, too, if nothing more is
/// sent without it.
fn request_acknowledgement(endpoint: &Endpoint<'_>, requester: &mut Requester, super_packets: &mut [SuperPacket<'_>]) {
    let parameters = endpoint.parameters;
    if !parameters.is_reliable() {
        return;
    }
    let packets = super_packets.iter().map(SuperPacket::packets).sum();
    let many = requester.count_packets(packets, parameters.acknowledge_every);
    let last = super_packets.len() - 1;
    let at = match requester.window(parameters.mtu) {
        Some(0) => Some(last),
        _ => super_packets
            .iter()
            .rposition(|super_packet| super_packet.head.opcode.position().ends())
            .or(many.then_some(last)),
    };
    if let Some(super_packet) = at.and_then(|at| super_packets.get_mut(at)) {
        let packets = super_packet.packets();
        let bth = &mut super_packet.head.headers.bth;
        *bth = bth.with_ack_request(true);
        requester.acknowledgement_requested(bth.psn() + packets);
    }
}

/// Checks the timers, prepares a retransmission after an acknowledgement timeout, and returns whether packets may be
/// sent.
fn check_timers(endpoint: &Endpoint<'_>, requester: &mut Requester) -> bool {
    let now = endpoint.hca().clock.instant();
    match requester.poll_timers(now) {
        Timers::Send => true,
        Timers::RnrDelay(end) => {
            set_alarm(endpoint, requester, end, Timer::ReceiverNotReady, end - now);
            false
        }
        Timers::AckTimeout => {
            endpoint.trace(NicEvent::AckTimeout, || [requester.send_psn().value(), 0, 0, 0]);
            if !requester.retry(endpoint.parameters.retry_count) {
                fail_oldest(endpoint, requester, Syndrome::TransportRetryExceeded);
                return false;
            }
            endpoint.count(QueueCounter::LocalAckTimeoutErr);
            requester.go_back_to_unacknowledged();
            true
        }
    }
}

/// Starts or stops the acknowledgement timer.
fn arm_timer(endpoint: &Endpoint<'_>, requester: &mut Requester) {
    let code = endpoint.parameters.ack_timeout;
    let timeout = (code > 0).then(|| ACK_TIMEOUT_UNIT * (1 << code.max(MIN_ACK_TIMEOUT)));
    if let Some(deadline) = requester.arm_timer(timeout, || endpoint.hca().clock.instant()) {
        let timeout = timeout.unwrap_or_default();
        set_alarm(endpoint, requester, deadline, Timer::Acknowledgement, timeout);
    }
}

fn set_alarm(endpoint: &Endpoint<'_>, requester: &mut Requester, time: Instant, timer: Timer, delay: Duration) {
    if requester.set_alarm(time) {
        endpoint.schedule_at(time, timer, delay);
    }
}

/// Adds the next super-packet to the batch, or executes the next WQE that needs none. Returns whether there may be
/// more.
fn send_next<'a>(
    endpoint: &Endpoint<'_>,
    requester: &mut Requester,
    reader: &mut Reader<'_>,
    keys: &mut mkey::Recent<'_>,
    batch: &mut Batch<'a>,
) -> bool {
    let parameters = endpoint.parameters;
    // Nothing acknowledges what is sent on unreliable services.
    let window = parameters
        .is_reliable()
        .then(|| requester.window(parameters.mtu))
        .flatten();
    let limit = match window {
        // Without a request on its way, there would be no acknowledgement to wait for.
        Some(0) if !batch.is_empty() || requester.awaits_acknowledgement() => return false,
        Some(window) => window.max(parameters.mtu),
        None => batch::LENGTH,
    };
    if requester.is_caught_up() && !fetch(endpoint, requester, reader) {
        return false;
    }
    if !requester.begin_message() {
        return true;
    }
    let Some(message) = requester.current() else {
        return false;
    };
    let fenced = message.control().fm_ce_se >> FENCE_SHIFT > FENCE_SMALL;
    if fenced || message.work().is_request() {
        let open = requester.open_requests();
        if fenced && open > 0 || message.work().is_request() && open >= parameters.max_requests {
            return false;
        }
    }
    let is_first = |requester: &Requester, batch: &Batch<'_>| batch.is_empty() && requester.is_oldest();
    let psn = requester.send_psn();
    let made = match message.work() {
        Work::Nop => {
            requester.finish_local();
            return true;
        }
        Work::Bad(_) | Work::Umr { .. } if !is_first(requester, batch) => return false,
        Work::Umr { bytes } => {
            // It may change the key that is locked.
            keys.unlock();
            if let Some(read) = key_update::execute(endpoint, message.control().immediate.get(), bytes) {
                requester.account_list(read);
                requester.finish_local();
                return true;
            }
            Err(Syndrome::MwBind.into())
        }
        Work::Bad(syndrome) => Err((*syndrome).into()),
        Work::Datagram { .. } => datagram::push_packet(endpoint, message, psn, keys, batch).map(|()| 1),
        _ => match outbound_request::push(endpoint, message, psn, limit, keys, batch) {
            // The frequent case ends here: a result that is copied stalls the processor.
            Ok(packets) => {
                requester.account_sent(packets, parameters.mtu);
                requester.advance(packets, parameters.is_reliable());
                return true;
            }
            // If the payload cannot be accessed as a whole, the packets before the first that cannot are sent.
            Err(_) => outbound_request::push(endpoint, message, psn, parameters.mtu, keys, batch),
        },
    };
    match made {
        Ok(packets) => {
            requester.account_sent(packets, parameters.mtu);
            requester.advance(packets, parameters.is_reliable());
            true
        }
        // Earlier messages are completed first.
        Err(_) if !is_first(requester, batch) => false,
        Err(failure) => {
            keys.unlock();
            if let Some(error) = &failure.denied {
                denial::report(endpoint.hca(), endpoint.qp.number, error);
            }
            complete_sent(endpoint, requester);
            fail_oldest(endpoint, requester, failure.syndrome);
            false
        }
    }
}

/// Reads the next WQE. Returns whether there was one, and room for its message.
fn fetch(endpoint: &Endpoint<'_>, requester: &mut Requester, reader: &mut Reader<'_>) -> bool {
    let (hca, parameters) = (endpoint.hca(), endpoint.parameters);
    if requester.is_full(parameters.is_reliable()) || !reader.is_posted(requester.fetched()) {
        return false;
    }
    let message = requester.append();
    let (blocks, origin) = reader.read(message);
    match origin {
        WqeOrigin::Register => hca.blue_flame.count(),
        WqeOrigin::Ring if message.control().index() != message.index() => report_stale(endpoint, message),
        _ => {}
    }
    if hca.check_wqes && origin == WqeOrigin::Ring {
        let length = message.control().ds() * SEND_WQE_DS;
        message.keep_wqe(reader.last(message.index(), blocks).get(..length).unwrap_or_default());
    }
    let mut packets = match message.work() {
        Work::Nop | Work::Umr { .. } | Work::Bad(_) => 0,
        Work::Datagram { .. } | Work::CompareSwap { .. } | Work::FetchAdd { .. } => 1,
        _ => parameters.packets(message.length() as usize),
    };
    if packets > MAX_PACKETS {
        message.set_work(Work::Bad(Syndrome::LocalLength));
        packets = 0;
    }
    if let Work::Bad(_) = message.work() {
        report_malformed(endpoint, origin, message);
    }
    let first = match origin {
        WqeOrigin::Nowhere => requester.post_unread(),
        WqeOrigin::Ring | WqeOrigin::Register => requester.post(blocks, packets),
    };
    if hca.tracer.is_on() {
        trace_wqe(endpoint, requester, first, packets);
    }
    true
}

/// Traces the WQE of the message that was posted last.
#[cold]
fn trace_wqe(endpoint: &Endpoint<'_>, requester: &Requester, first: Psn, packets: u32) {
    if let Some(message) = requester.newest() {
        let (index, opcode) = (message.index(), message.control().opcode());
        endpoint.trace(NicEvent::Wqe, || [index.into(), opcode.into(), first.value(), packets]);
    }
}

#[cold]
fn report_stale(endpoint: &Endpoint<'_>, message: &Message) {
    let (number, control) = (endpoint.qp.number, message.control());
    let text = format_args!(
        "queue pair {number:#x}, WQE {:#x} is not there: {control:?}",
        message.index()
    );
    let findings = &endpoint.hca().findings;
    findings.report(Finding::StaleWqe, queue(number), control.as_bytes(), text);
}

#[cold]
fn report_malformed(endpoint: &Endpoint<'_>, origin: WqeOrigin, message: &Message) {
    let (number, control) = (endpoint.qp.number, message.control());
    // In a blank block, size and opcode are 0 as well; one with another index is reported already.
    if origin == WqeOrigin::Ring && control.ds() == 0 && control.index() == message.index() {
        report_stale(endpoint, message);
    }
    let text = format_args!(
        "queue pair {number:#x}, WQE {:#x} is malformed: {control:?}",
        message.index()
    );
    let findings = &endpoint.hca().findings;
    findings.report(Finding::BadSendWqe, queue(number), control.as_bytes(), text);
}
